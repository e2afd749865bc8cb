"""What the runtime's tests share: a configuration on disk, and a way to run a collector over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import hypothesis
import pytest

from n6_stateful import settings
from n6_stateful.testing import MemoryOutput

# A busy machine is no failure.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

InForce = Callable[[str], AbstractContextManager[None]]
WriteConfig = Callable[[str], Path]


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    """Writes a configuration file; `{tmp}` in the text stands for the test's directory."""

    def write(text: str) -> Path:
        path = tmp_path / "60_test.conf"
        path.write_text(text.replace("{tmp}", str(tmp_path)))
        return path

    return write


@pytest.fixture
def memory() -> MemoryOutput:
    """An output in memory."""
    return MemoryOutput()


@pytest.fixture
def in_force(write_config: WriteConfig, memory: MemoryOutput) -> InForce:
    """`with in_force(config_text):` puts that configuration in force, and `memory` as the output."""

    @contextmanager
    def use(config_text: str) -> Iterator[None]:
        path = write_config(config_text)
        with settings.use(settings.Settings(config_paths=(str(path),), output=memory)):
            yield

    return use
