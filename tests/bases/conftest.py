"""What the tests of the base classes share."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import stamina

from tests.bases.http_server import Server

hypothesis.settings.register_profile("on any machine", deadline=None)
hypothesis.settings.load_profile("on any machine")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, with no proxy between us and it."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    with Server() as it:
        yield it


@pytest.fixture(autouse=True)
def _without_waiting() -> Iterator[None]:
    """Retry at once, without pauses."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield
