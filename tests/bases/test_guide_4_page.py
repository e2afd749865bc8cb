"""The example on n6 4.x's own page on state runs as the page says. It is read from there, as it is not ours.

The page is `docs/guides/new_source/collectors/state.md` of n6's repository. CI fetches it every week; so does

    curl -fsSLO https://raw.githubusercontent.com/CERT-Polska/n6/master/docs/guides/new_source/collectors/state.md
    N6_STATEFUL_N6_PAGE=$PWD/state.md pytest tests/bases/test_guide_4_page.py
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.core.memory_broker import MemoryBroker

PAGE = os.environ.get("N6_STATEFUL_N6_PAGE")
IMPORTS = "from n6_stateful.bases import BaseCollector, StatefulCollectorMixin\n"
# What the page leaves out: an author's note (a line in capitals), a body, and the source of the data.
NOTE, BODY = re.compile(r"^ +[A-Z]+\n", re.MULTILINE), "\n        raise NotImplementedError\n"


class Body(bytes):
    time_utc = "2026-01-01T00:00:00"


@pytest.mark.skipif(PAGE is None, reason="N6_STATEFUL_N6_PAGE is not set: n6's page is tried weekly, in CI")
def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class, unchanged except for imports and what it leaves out, remembers what it collected."""
    pattern = re.compile(r"^```python\n(class .*?)^```", re.DOTALL | re.MULTILINE)
    (example,) = pattern.findall(Path(str(PAGE)).read_text())
    (tmp_path / "n6_page.py").write_text(IMPORTS + NOTE.sub("", example) + BODY)
    monkeypatch.syspath_prepend(tmp_path)
    asked: list[Any] = []

    class Collector(import_module("n6_page").MyStatefullCollector):  # type: ignore[misc]
        def _download(self, url: str, only_newer_than: Any) -> Body:
            asked.append(only_newer_than)
            return Body(b"a record")

        def get_source(self, **processed_data: Any) -> str:
            return f"my-provider.{self.get_source_channel()}"

    config, memory = tmp_path / "60_page.conf", MemoryBroker()
    config.write_text(
        f"[my_statefull_collector]\nstate_dir = {tmp_path}/state\nurl = https://feed.example/\n"
    )
    with memory.in_place(config):
        for _ in range(2):
            collector = Collector()
            collector.run_collection()
            collector.close_state()
    assert asked == [None, Body.time_utc]
    assert {(message.routing_key, message.body) for message in memory.delivered} == {
        ("my-provider.example-channel", b"a record")
    }
