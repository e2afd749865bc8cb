"""The example on n6 4.x's own page on state runs as the page says. It is read from there, as it is not ours.

The page is `docs/guides/new_source/collectors/state.md` of n6's repository. CI fetches it every week; so does

    curl -fsSLO https://raw.githubusercontent.com/CERT-Polska/n6/master/docs/guides/new_source/collectors/state.md
    N6_STATEFUL_N6_PAGE=$PWD/state.md pytest tests/bases/test_guide_4_page.py
"""

from __future__ import annotations

import os
import pickle
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.core.memory_broker import MemoryBroker

PAGE = os.environ.get("N6_STATEFUL_N6_PAGE")
CONFIG = """
[my_statefull_collector]
state_dir = {tmp}/state
url = https://feed.example/
"""
IMPORTS = "from n6_stateful.bases import BaseCollector, StatefulCollectorMixin\n"
# What the page leaves open: a note of its author's (a line of capitals), a body, and where the data are from.
NOTE, BODY = re.compile(r"^ +[A-Z]+\n", re.MULTILINE), "\n        raise NotImplementedError\n"


class Body(bytes):
    time_utc = "2026-01-01T00:00:00"


@pytest.mark.skipif(
    PAGE is None, reason="N6_STATEFUL_N6_PAGE is not set: n6's page is tried every week, in CI"
)
def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class as it stands there, but for its imports and what it leaves open, remembers what it took."""
    (example,) = re.findall(
        r"^```python\n(class .*?)^```", Path(str(PAGE)).read_text(), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "n6_page.py").write_text(IMPORTS + NOTE.sub("", example) + BODY)
    monkeypatch.syspath_prepend(tmp_path)
    collector_class: Any = import_module("n6_page").MyStatefullCollector
    asked: list[tuple[str, Any]] = []

    def download(self: Any, url: str, only_newer_than: Any) -> Body:
        asked.append((url, only_newer_than))
        return Body(b"a record")

    def source(self: Any, **_: Any) -> str:
        return f"my-provider.{self.get_source_channel()}"

    monkeypatch.setattr(collector_class, "_download", download)
    monkeypatch.setattr(collector_class, "get_source", source)
    config, memory = tmp_path / "60_page.conf", MemoryBroker()
    config.write_text(CONFIG.format(tmp=tmp_path))
    with memory.in_place(config):
        for _ in range(2):
            collector = collector_class()
            collector.run_collection()
            collector.close_state()
    assert asked == [("https://feed.example/", None), ("https://feed.example/", Body.time_utc)]
    assert [(message.routing_key, message.body) for message in memory.delivered] == [
        ("my-provider.example-channel", b"a record")
    ] * 2
    state = tmp_path / "state" / "n6_page.MyStatefullCollector.pickle"
    assert pickle.loads(state.read_bytes()) == {"last_utc": Body.time_utc}
