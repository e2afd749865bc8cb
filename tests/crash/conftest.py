"""What the tests that kill runs have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from n6_stateful.output.spool import Spool
from tests.broker.conftest import broker as broker  # the fixture


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")
