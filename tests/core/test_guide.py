"""The class of n6's guide, as it is written there, runs as the guide says."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import BaseCollector, CollectorWithStateMixin, Download, SourceError
from tests.core.memory_broker import InForce, MemoryBroker

CONFIG = """
[my_statefull_collector]
source = my-provider
cache_dir = {tmp}/cache
"""


class Body(bytes):
    time_utc = "2026-01-01T00:00:00"


# From here to the blank line before `_url` this is the guide's text, letter by letter.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# fmt: off
class MyStatefullCollector(CollectorWithStateMixin, BaseCollector):
    type = 'stream'
    config_spec = '''
        [my_statefull_collector]
        source :: str
        cache_dir :: str
    '''
    def make_default_state(self):
        return {}
    def run(self):
        self.state = self.load_state()
        super().run()
        self.save_state(self.state)
    def start_publishing(self):
        output_rk, output_data_body, output_prop_kwargs = self.get_output_components()
        self.publish_output(output_rk, output_data_body, output_prop_kwargs)
        self.inner_stop()
    def get_source_channel(self, **processed_data):
        return 'example-channel'
    def get_output_data_body(self, **kwargs):
        data = self._collect_data(self._url)
        return data
    def _collect_data(self, url):
        data = self._download(only_newer_than=self.state.get('last_utc'))
        self.state['last_utc'] = data.time_utc
        return data

    _url = 'https://feed.example/'
    asked_for: Any = ()
    def _download(self, only_newer_than):
        self.asked_for = (*self.asked_for, only_newer_than)
        return Body(b'a record')
# fmt: on


def run_once() -> MyStatefullCollector:
    collector = MyStatefullCollector()
    collector.run_handling()
    collector.close_state()
    return collector


def test_publishes(in_force: InForce, memory: MemoryBroker) -> None:
    """The class of the guide publishes what it downloads."""
    with in_force(CONFIG):
        run_once()
    (message,) = memory.delivered
    assert (message.exchange, message.routing_key, message.body) == (
        "raw",
        "my-provider.example-channel",
        b"a record",
    )
    assert message.properties["type"] == "stream"
    assert message.properties["delivery_mode"] == 2


def test_remembers(in_force: InForce, tmp_path: Path) -> None:
    """The class of the guide remembers between runs."""
    with in_force(CONFIG):
        assert run_once().asked_for == (None,)
        assert run_once().asked_for == ("2026-01-01T00:00:00",)
    path = tmp_path / "cache" / "my-provider.example-channel.MyStatefullCollector.pickle"
    assert pickle.loads(path.read_bytes()) == {"last_utc": "2026-01-01T00:00:00"}


def test_empty(in_force: InForce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty Download is an error of the source, and its time_utc is not remembered."""
    monkeypatch.setattr(MyStatefullCollector, "_download", lambda *_, **__: Download(b"", time_utc="later"))
    with in_force(CONFIG), pytest.raises(SourceError, match="empty body; nothing was published"):
        run_once()
    assert not (tmp_path / "cache" / "my-provider.example-channel.MyStatefullCollector.pickle").exists()


@pytest.mark.parametrize("converter", ["str", "path"])
def test_tilde(converter: str, in_force: InForce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cache_dir` may begin with a tilde."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(
        MyStatefullCollector,
        "config_spec",
        f"[my_statefull_collector]\nsource :: str\ncache_dir :: {converter}",
    )
    with in_force("[my_statefull_collector]\nsource = my-provider\ncache_dir = ~/n6cache"):
        run_once()
    assert list((tmp_path / "n6cache").glob("*.pickle"))
