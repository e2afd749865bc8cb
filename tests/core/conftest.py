"""What the core's tests share: a configuration on disk, and a broker in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.core.memory_broker import InForce, MemoryBroker

# A busy machine is no failure.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

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
def memory() -> MemoryBroker:
    """A broker in memory."""
    return MemoryBroker()


@pytest.fixture
def in_force(write_config: WriteConfig, memory: MemoryBroker) -> InForce:
    """`with in_force(config_text):` puts that configuration in force, and `memory` as the broker."""

    @contextmanager
    def use(config_text: str, **kwargs: Any) -> Iterator[None]:
        with memory.in_place(write_config(config_text), **kwargs):
            yield

    return use
