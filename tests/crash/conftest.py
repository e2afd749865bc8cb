"""What the tests that kill runs have in common."""

from __future__ import annotations

import compileall
from pathlib import Path

import pytest

import n6_stateful
from n6_stateful.output.spool import Spool
from tests.broker.conftest import broker as broker  # the fixture


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """The runtime is compiled, as it is where it is installed: should another process do that between two
    runs, the second would make other system calls than the first."""
    for directory in n6_stateful.__path__:
        compileall.compile_dir(directory, quiet=1)
