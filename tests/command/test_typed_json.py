"""States as JSON, and back."""

from __future__ import annotations

import datetime
import ipaddress
import json
import time
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import hypothesis
import pytest
from hypothesis import given

from n6_stateful import StateError
from n6_stateful.command import typed_json
from tests.core.plain_states import STATES

EAST = datetime.timezone(datetime.timedelta(hours=2))


def there_and_back(state: object) -> Any:
    return typed_json.load(json.loads(json.dumps(typed_json.dump(state))))


class TestRoundTrip:
    @pytest.mark.parametrize(
        "state",
        [
            {"$set": 1},
            {1: {None: ((), frozenset())}, "a": {"b": {2.5}}},
            [float("inf"), -0.0, 10**30, "\udcff", "$set", True],
            [datetime.datetime(2026, 1, 1, tzinfo=EAST), datetime.date(2026, 1, 1)],
            [datetime.datetime(2026, 10, 25, 2, fold=1), datetime.timedelta(-1, 2, 3)],
            [datetime.time(1, 2, 3, 4, tzinfo=datetime.UTC), EAST],
            [Decimal("1.50"), Fraction(-1, 3), 1 - 2j, uuid.UUID(int=5), time.gmtime(0)],
            [ipaddress.ip_address("192.0.2.1"), ipaddress.ip_network("2001:db8::/32")],
            [ipaddress.ip_interface("192.0.2.1/24"), b"\xff", bytearray(b"\xff")],
            [OrderedDict([(2, "b"), (1, "a")]), Counter("aab"), deque([1, (2,)], maxlen=3)],
            [defaultdict(list, {"a": [(1, 2)]}), defaultdict(None, {"a": 1})],
        ],
        ids=repr,
    )
    def test_types(self, state: object) -> None:
        """What is read again is equal, to its types."""
        again = there_and_back(state)
        assert again == state
        assert repr(again) == repr(state)

    @hypothesis.settings(deadline=None)
    @given(STATES)
    def test_any_plain_data(self, state: object) -> None:
        """The same holds for plain data of any shape."""
        assert there_and_back(state) == state


class TestRefusals:
    @pytest.mark.parametrize(
        "state",
        [types.SimpleNamespace(a=1), defaultdict(uuid.UUID)],
        ids=repr,
    )
    def test_no_notation(self, state: object) -> None:
        """What JSON cannot express is refused by its type, and shown as text."""
        with pytest.raises(StateError, match=f"{type(state).__name__}, which JSON cannot express"):
            typed_json.dump([state])
        assert typed_json.dump([state], show=True) == [{"$repr": repr(state)}]

    def test_holds_itself(self) -> None:
        """A state that holds itself is one clear error."""
        state: list[object] = []
        state.append(state)
        with pytest.raises(StateError, match="holds itself"):
            typed_json.dump(state)

    @pytest.mark.parametrize(
        "written",
        [
            {"$set": 1},
            {"$nothing": []},
            {"$bytes": "!"},
            {"$set": [[1]]},
            {"$set": [], "more": 1},
            {"$datetime": "yesterday"},
            {"$decimal": "x"},
            {"$uuid": 5},
            {"$timedelta": [10**12]},
            {"$timezone": "x"},
            {"$defaultdict": ["eval", []]},
            {"$fraction": "1/0"},
        ],
        ids=repr,
    )
    def test_not_written_by_dump(self, written: object) -> None:
        """What `dump` cannot have written is a ValueError."""
        with pytest.raises(ValueError, match=r".+"):
            typed_json.load(written)
