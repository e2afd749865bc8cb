"""Things that come, change, go and return: each version once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n6_stateful import ConfigError, NothingNew, SourceError
from n6_stateful.bases.items import KEY_SIZE, VERSION_SIZE, BaseSeenItemsCollector
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
    arrived = running.run(obtain_items=lambda self: items, hour=lambda self: hour, **how)
    return [message.body for message in arrived]


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(ItemsCollector, tmp_path, "forget_after = 30d")


class TestSeen:
    """What is new."""

    def test_once(self, running: Running) -> None:
        """A thing is published once, in the source's order, even if it is listed twice."""
        assert run(running, [("b", 1), ("a", 1), ("b", 1)]) == [b"b 1", b"a 1"]
        assert run(running, [("a", 1), ("c", 1), ("b", 1)]) == [b"c 1"]
        assert run(running, []) == []

    def test_version(self, running: Running) -> None:
        """A new version is published again, and so is an old one that comes back."""
        shown = [run(running, [("a", version)]) for version in (1, 2, 2, 1)]
        assert shown == [[b"a 1"], [b"a 2"], [], [b"a 1"]]

    def test_forgotten(self, running: Running) -> None:
        """A thing that returns is new only if the source did not show it for longer than forget_after."""
        both = [("a", 1), ("b", 1)]
        run(running, both, hour=0)
        assert run(running, [("b", 1)], hour=HOURS) == []
        assert run(running, both, hour=HOURS) == []
        assert run(running, [("b", 1)], hour=2 * HOURS + 1) == []
        assert run(running, both, hour=2 * HOURS + 1) == [b"a 1"]
        assert run(running, [], hour=4 * HOURS) == []
        assert running.state["seen"] == {}

    def test_pause(self, running: Running) -> None:
        """What the source still shows is not new, however long nobody looked."""
        run(running, [("a", 1)], hour=0)
        assert run(running, [("a", 1)], hour=100 * HOURS) == []

    def test_channel(self, running: Running) -> None:
        """The channel may depend on the thing; the state's name does not."""
        run(running, [("a", 1)])
        assert running.arrived[0].routing_key == "provider.channel-a"

    def test_size(self, running: Running) -> None:
        """The state holds 16 bytes a thing."""
        run(running, [(str(number), 1) for number in range(1_000)])
        assert sum(map(len, running.state["seen"].values())) == 1_000 * (KEY_SIZE + VERSION_SIZE)

    @pytest.mark.parametrize("value", ["soon", "10", "-1d", ""])
    def test_forget_after(self, value: str, tmp_path: Path) -> None:
        """A forget_after that is not a length of time is one clear error."""
        with pytest.raises(ConfigError, match="forget_after"):
            run(Running(ItemsCollector, tmp_path, f"forget_after = {value}"), [("a", 1)])


class TestKeys:
    """What tells one thing from another."""

    @pytest.mark.parametrize("key", ["", None, 7])
    def test_none(self, key: Any, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """An item without a key is left out and told; if none has one, it is an error."""
        members: Any = {
            "item_key": lambda self, item: item[0],
            "get_source_channel": lambda self, **_: "items",
        }
        assert run(running, [(key, 1), ("a", 1)], **members) == [b"a 1"]
        assert f"items without a key: 1; the first is ({key!r}, 1); left out" in caplog.text
        with pytest.raises(SourceError, match=r"item_key\(\) has to return a str; nothing was published"):
            run(running, [(key, 1)], **members)

    def test_no_version(self, running: Running) -> None:
        """An item without a version is published once."""
        shown = [run(running, [("a", 1)], item_version=lambda self, item: None) for _ in range(2)]
        assert shown == [[b"a 1"], []]

    def test_changing_items(self, running: Running) -> None:
        """Items that are there only until the next one is asked for are published as they were."""

        def obtain_items(collector: Any) -> Any:
            item: Any = ["", 1]
            for key in ("a", "b"):
                item[0] = key
                yield item

        arrived = running.run(obtain_items=obtain_items)
        assert [message.body for message in arrived] == [b"a 1", b"b 1"]

    def test_half_a_character(self, running: Running) -> None:
        """What JSON can hold and UTF-8 cannot is a key, too."""
        members: Any = {
            "item_body": lambda self, item: b"taken",
            "get_source_channel": lambda self, **_: "items",
        }
        assert run(running, [("\ud800", 1), ("\ud801", 1)], **members) == [b"taken"] * 2
        assert run(running, [("\ud801", 1), ("\ud800", 1)], **members) == []


class TestPartly:
    """A source of which a part says that it has nothing new."""

    def test_nothing_new(self, running: Running) -> None:
        """What was new before is published once; what is not shown then is not forgotten for it."""
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

    def test_parts_of_an_hour(self, tmp_path: Path) -> None:
        """What is remembered by the hour is not forgotten before its time."""
        running = Running(ItemsCollector, tmp_path, "forget_after = 30m")
        run(running, [("a", 1)], hour=13)
        run(running, [], hour=14)
        assert run(running, [("a", 1)], hour=14) == []


KEYS = st.sampled_from(["a", "b", "c", "d"])
SHOWN = st.dictionaries(KEYS, st.integers(1, 3)).map(lambda shown: list(shown.items()))


class TestHistories:
    """Any history of appearing, changing, leaving and returning, against a model."""

    @settings(deadline=None)
    @given(st.lists(st.tuples(SHOWN, st.integers(0, 40), st.booleans()), max_size=12))
    def test_model(self, history: list[tuple[list[tuple[str, int]], int, bool]]) -> None:
        """Each run publishes what the model says; a killed one changes nothing, and its twin has its ids."""
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
                    assert run(running, items, hour, kill_at_save=1) == expected
                assert run(running, items, hour) == expected
                if killed and expected:
                    ids = [message.properties["message_id"] for message in running.arrived]
                    assert ids[-len(expected) :] == ids[-2 * len(expected) : -len(expected)]
                last_seen = {
                    **{key: seen for key, seen in last_seen.items() if hour - seen[1] <= 24},
                    **{key: (version, hour) for key, version in items},
                }
