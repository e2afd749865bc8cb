"""Plain data as JSON, and back."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import ipaddress
import json
import pathlib
import types
import uuid
import zoneinfo
from typing import Any

import hypothesis
import pytest
from hypothesis import given

from n6_stateful import StateError, typed_json
from tests.runtime.plain_states import STATES

WARSAW = zoneinfo.ZoneInfo("Europe/Warsaw")
NAMED = datetime.timezone(datetime.timedelta(hours=1), "CET")


def there_and_back(state: object) -> Any:
    return typed_json.load(json.loads(json.dumps(typed_json.dump(state))))


class TestForms:
    @pytest.mark.parametrize(
        "state",
        [
            {"$set": 1},
            {"$dict": {"$set": [1]}},
            {1: {None: ((), frozenset())}},
            {True: 1, "a": {"b": {2.5}}},
            [float("inf"), -0.0, 10**30, "\udcff", "$set"],
            datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
            datetime.time(1, 2, 3, 4, tzinfo=datetime.UTC),
            datetime.timedelta(-1, 2, 3),
            datetime.timezone(datetime.timedelta(seconds=1)),
            decimal.Decimal("1.50"),
            fractions.Fraction(-1, 3),
            1 - 2j,
            uuid.UUID(int=5),
            [ipaddress.ip_address("192.0.2.1"), ipaddress.ip_network("2001:db8::/32")],
            [ipaddress.ip_interface("192.0.2.1/24"), ipaddress.ip_interface("2001:db8::1/64")],
            [pathlib.Path("/a/b"), pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("c:/a")],
            bytearray(b"\xff"),
            collections.OrderedDict([(2, "b"), (1, "a")]),
            collections.Counter("aab"),
            collections.defaultdict(list, {"a": [(1, 2)]}),
            collections.defaultdict(None, {"a": 1}),
            collections.deque([1, (2,)], maxlen=3),
        ],
        ids=repr,
    )
    def test_round_trip(self, state: object) -> None:
        """What is read again is equal, to its types."""
        again = there_and_back(state)
        assert again == state
        assert repr(again) == repr(state)

    @hypothesis.settings(deadline=None)
    @given(STATES)
    def test_any_plain_data(self, state: object) -> None:
        """The same holds for plain data of any shape."""
        assert there_and_back(state) == state

    @pytest.mark.parametrize("state", [range(1, 9, 2), slice(None, 5), [slice(1)]], ids=repr)
    def test_ranges(self, state: object) -> None:
        """Ranges and slices come back, too."""
        assert repr(there_and_back(state)) == repr(state)

    @pytest.mark.parametrize(
        "moment",
        [
            datetime.datetime(2026, 10, 25, 2, 30, tzinfo=WARSAW, fold=1),
            datetime.datetime(2026, 10, 25, 2, 30, tzinfo=WARSAW),
            datetime.datetime(2026, 10, 25, 2, 30, fold=1),
            datetime.datetime(2026, 1, 1, tzinfo=NAMED),
            datetime.time(2, 30, tzinfo=NAMED, fold=1),
        ],
        ids=repr,
    )
    def test_time_keeps_fold_and_zone(self, moment: Any) -> None:
        """A time that is there twice keeps which one it is, and a zone its name."""
        again = there_and_back(moment)
        assert (again, again.fold, again.tzname()) == (moment, moment.fold, moment.tzname())
        assert type(again.tzinfo) is type(moment.tzinfo)

    def test_old_forms(self) -> None:
        """What earlier versions have exported is read."""
        found = {"$dict": [[{"$tuple": [1]}, {"$datetime": "2026-01-01T00:00:00+02:00"}]]}
        zone = datetime.timezone(datetime.timedelta(hours=2))
        assert typed_json.load(found) == {(1,): datetime.datetime(2026, 1, 1, tzinfo=zone)}


class TestRefusals:
    @pytest.mark.parametrize(
        "state",
        [types.SimpleNamespace(a=1), collections.defaultdict(uuid.UUID), iter("")],
        ids=["namespace", "factory", "iterator"],
    )
    def test_no_form(self, state: object) -> None:
        """What has no form is refused by its type, and shown to people as text."""
        with pytest.raises(StateError, match="JSON has no form"):
            typed_json.dump([state])
        assert typed_json.dump([state], to_look_at=True) == [{"$repr": repr(state)}]

    def test_holds_itself(self) -> None:
        """A state that holds itself is one clear error."""
        state: list[object] = []
        state.append(state)
        with pytest.raises(StateError, match="holds itself"):
            typed_json.dump(state)

    @pytest.mark.parametrize(
        "found",
        [
            {"$set": 1},
            {"$nothing": []},
            {"$bytes": "!"},
            {"$set": [[1]]},
            {"$set": [], "more": 1},
            {"$datetime": "yesterday"},
            {"$datetime": ["2026-01-01"]},
            {"$decimal": "x"},
            {"$uuid": 5},
            {"$zoneinfo": "Nowhere/Land"},
            {"$timedelta": [10**12]},
            {"$timezone": ["x"]},
            {"$defaultdict": ["eval", []]},
            {"$fraction": "1/0"},
        ],
        ids=repr,
    )
    def test_not_a_form(self, found: object) -> None:
        """What `dump` cannot have made is a ValueError."""
        with pytest.raises(ValueError, match=r".+"):
            typed_json.load(found)
