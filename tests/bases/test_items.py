"""Items that appear, change, disappear and return: each version once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n6_stateful import CollectorError, NothingNew, SourceError, StateError
from n6_stateful.bases.items import BaseSeenItemsCollector
from tests.bases.running import Running

HOURS = 24 * 30


class ItemsCollector(BaseSeenItemsCollector):
    source_channel = "items"
    config_spec = "[feed]\nsource :: str\ncache_dir :: path\n"

    def item_key(self, item: tuple[str, int]) -> str:
        return item[0]

    def item_version(self, item: tuple[str, int]) -> str:
        return str(item[1])

    def get_source_channel(self, **processed_data: Any) -> str:
        return f"channel-{processed_data['item'][0]}"

    def item_body(self, item: tuple[str, int]) -> bytes:
        return b"%s %d" % (item[0].encode(), item[1])


def run(running: Running, items: list[tuple[str, int]], hour: int = HOURS, **how: Any) -> list[bytes]:
    """What a run publishes when the source shows these items at that hour."""
    arrived = running.run(**{"obtain_items": lambda self: items, "hour": lambda self: hour, **how})
    return [message.body for message in arrived]


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(ItemsCollector, tmp_path, "forget_after = 30d")


class TestSeen:
    """What is new."""

    def test_once(self, running: Running) -> None:
        """An item is published once, in the source's order, even if listed twice; it costs 16 bytes."""
        assert run(running, [("b", 1), ("a", 1), ("b", 1)]) == [b"b 1", b"a 1"]
        assert run(running, [("a", 1), ("c", 1), ("b", 1)]) == [b"c 1"]
        assert run(running, []) == []
        assert running.arrived[0].routing_key == "provider.channel-b"
        assert sum(map(len, running.state["seen"].values())) == 3 * 16
        assert run(running, [], hour=2 * HOURS + 1) == []
        assert running.state["seen"] == {}


class TestKeys:
    """What identifies an item."""

    MEMBERS: Any = {"item_key": lambda self, item: item[0], "get_source_channel": lambda self, **_: "items"}

    @pytest.mark.parametrize("key", ["", None, 7])
    def test_none(self, key: Any, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """An item without a key is left out, with a warning; if none has one, it is an error."""
        assert run(running, [(key, 1), ("a", 1)], **self.MEMBERS) == [b"a 1"]
        assert f"must return a str), left out: 1 (({key!r}, 1))" in caplog.text
        assert running.left_out == 1
        with pytest.raises(SourceError, match="no item could be used; nothing was published"):
            run(running, [(key, 1)], **self.MEMBERS)

    @pytest.mark.parametrize("wrap", [str, list, lambda item: {"name": item}])
    def test_shared(self, wrap: Any, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """Several items with one key and different contents are a warning that shows it, in every run."""
        members = self.MEMBERS | {
            "item_key": lambda self, item: "the key",
            "item_version": lambda self, item: None,
            "item_body": lambda self, item: str(item).encode(),
        }
        for expected in ([str(wrap("ab")).encode()], []):
            caplog.clear()
            assert run(running, [wrap("ab"), wrap("ab"), wrap("cd"), wrap("ef")], **members) == expected
            assert "items with the same key as another, left out" in caplog.text
            assert "2 ('the key'; 'the key')" in caplog.text
            assert running.left_out == 2
        assert run(running, [wrap("ab"), wrap("ab")], **members) == []
        assert running.left_out == 0

    def test_changing_items(self, running: Running) -> None:
        """Items whose object is reused for the next one are published as they were."""

        def obtain_items(collector: Any) -> Any:
            item: Any = ["", 1]
            for key in ("a", "b"):
                item[0] = key
                yield item

        arrived = running.run(obtain_items=obtain_items)
        assert [message.body for message in arrived] == [b"a 1", b"b 1"]

    @pytest.mark.parametrize(
        ("hook", "value", "text"),
        [
            ("obtain_items", None, r"obtain_items\(\) must return Iterable, not NoneType"),
            ("item_version", 7, r"item_version\(\) must return str, not int"),
            ("item_body", "text", r"item_body\(\) must return bytes, not str"),
        ],
    )
    def test_hooks(self, hook: str, value: Any, text: str, running: Running) -> None:
        """A hook that returns something of another type is named."""
        with pytest.raises(CollectorError, match=text):
            running.run(
                **dict[str, Any]({"obtain_items": lambda self: [("a", 1)]}, **{hook: lambda *_: value})
            )


class TestPartly:
    """A source with a missing part."""

    def test_nothing_new(self, running: Running) -> None:
        """After `NothingNew`, new items are published once, and items not shown are not forgotten."""
        run(running, [("a", 1), ("b", 1)], hour=0)

        def obtain_items(collector: Any) -> Any:
            yield "c", 1
            raise NothingNew

        def again(hour: int) -> list[bytes]:
            arrived = running.run(obtain_items=obtain_items, hour=lambda self: hour)
            return [message.body for message in arrived]

        assert again(2 * HOURS) == [b"c 1"]
        assert again(2 * HOURS) == []
        assert run(running, [("a", 1), ("b", 1), ("c", 1)], hour=2 * HOURS) == []

    def test_item_fails(self, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """An item that cannot be obtained is tried again, and holds up no other; all failing is an error."""
        missing = {"b"}

        def item_body(collector: Any, item: tuple[str, int]) -> bytes:
            if item[0] in missing:
                raise SourceError(f"/{item[0]}.json: answered 404")
            return b"%s %d" % (item[0].encode(), item[1])

        shown = [("a", 1), ("b", 1), ("c", 1)]
        assert run(running, shown, item_body=item_body) == [b"a 1", b"c 1"]
        assert "the next run tries them again: 1 (/b.json: answered 404)" in caplog.text
        assert run(running, shown, item_body=item_body) == []
        assert running.left_out == 1
        missing.clear()
        assert run(running, shown, item_body=item_body) == [b"b 1"]
        assert running.left_out == 0
        missing.update("abc")
        assert run(running, [("a", 2), ("b", 1)], item_body=item_body) == []  # of a the old one is known
        missing.clear()
        assert run(running, [("a", 2), ("b", 1)], item_body=item_body) == [b"a 2"]
        missing.update("ab")
        with pytest.raises(SourceError, match=r"2 \(/a.json: .*; no item could be used"):
            run(running, [("a", 3), ("b", 2)], item_body=item_body)

    def test_parts_of_an_hour(self, tmp_path: Path) -> None:
        """What is remembered by the hour is not forgotten before its time."""
        running = Running(ItemsCollector, tmp_path, "forget_after = 30m")
        run(running, [("a", 1)], hour=13)
        run(running, [], hour=14)
        assert run(running, [("a", 1)], hour=14) == []


class TestForgetting:
    """`state forget`."""

    def test_one(self, running: Running) -> None:
        """That item is published again, and no other."""
        run(running, [("a", 1), ("b", 1)], hour=0)
        run(running, [("a", 1), ("b", 2)], hour=1)
        running.edit(lambda collector, state: collector.without_item(state, "b"))
        assert run(running, [("a", 1), ("b", 2)], hour=2) == [b"b 2"]
        with pytest.raises(StateError, match="no item with the key 'c'"):
            running.make().without_item(running.state, "c")


KEYS = st.sampled_from(["a", "b", "c", "d"])
SHOWN = st.dictionaries(KEYS, st.integers(1, 3)).map(lambda shown: list(shown.items()))


class TestHistories:
    """Any history of appearing, changing, leaving and returning, against a model."""

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.tuples(SHOWN, st.integers(0, 40), st.booleans()), max_size=12))
    def test_model(self, history: list[tuple[list[tuple[str, int]], int, bool]]) -> None:
        """Each run publishes what the model says; a killed one changes nothing."""
        last_seen: dict[str, tuple[int, int]] = {}  # by key: the version, and the hour it was shown last
        hour = HOURS
        with tempfile.TemporaryDirectory() as directory:
            running = Running(ItemsCollector, Path(directory), "forget_after = 24h")
            for items, later, killed in history:
                hour += later
                expected = [
                    b"%s %d" % (key.encode(), version)
                    for key, version in items
                    if key not in last_seen or last_seen[key][0] != version
                ]
                if killed:
                    assert run(running, items, hour, kill_at_save=1) == []
                assert run(running, items, hour) == expected
                last_seen = {
                    **{key: seen for key, seen in last_seen.items() if hour - seen[1] <= 24},
                    **{key: (version, hour) for key, version in items},
                }
