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


@pytest.mark.parametrize(
    "state",
    [
        [{"$set": 1}, {1: {None: ((), frozenset())}, "a": {"b": {2.5}}}],
        [float("inf"), -0.0, 10**30, "\udcff", "$set", True, b"\xff", bytearray(b"\xff")],
        [datetime.datetime(2026, 1, 1, tzinfo=EAST), datetime.datetime(2026, 10, 25, 2, fold=1), EAST],
        [datetime.date(2026, 1, 1), datetime.time(1, 2, tzinfo=datetime.UTC), datetime.timedelta(-1, 2, 3)],
        [Decimal("1.50"), Fraction(-1, 3), 1 - 2j, uuid.UUID(int=5), time.gmtime(0)],
        [ipaddress.ip_address("192.0.2.1"), ipaddress.ip_network("2001:db8::/32")],
        [OrderedDict([(2, "b"), (1, "a")]), Counter("aab"), deque([1, (2,)], maxlen=3)],
        [defaultdict(list, {"a": [(1, 2)]}), defaultdict(None, {"a": 1})],
    ],
    ids=repr,
)
def test_types(state: object) -> None:
    """What is read again is equal, to its types."""
    again = there_and_back(state)
    assert (again, repr(again)) == (state, repr(state))


@hypothesis.settings(deadline=None)
@given(STATES)
def test_any_plain_data(state: object) -> None:
    """The same holds for plain data of any shape."""
    assert there_and_back(state) == state


@pytest.mark.parametrize("state", [types.SimpleNamespace(a=1), defaultdict(uuid.UUID)], ids=repr)
def test_no_notation(state: object) -> None:
    """What JSON cannot express is refused by its type, and shown as text."""
    with pytest.raises(StateError, match=f"{type(state).__name__}, which JSON cannot express"):
        typed_json.dump([state])
    assert typed_json.dump([state], show=True) == [{"$repr": repr(state)}]


def test_holds_itself() -> None:
    """A state that holds itself is one clear error."""
    state: list[object] = []
    state.append(state)
    with pytest.raises(StateError, match="holds itself"):
        typed_json.dump(state)


@pytest.mark.parametrize(
    "text",
    [
        '{"$set": 1}', '{"$nothing": []}', '{"$bytes": "!"}', '{"$set": [[1]]}', '{"$set": [], "more": 1}',
        '{"$datetime": "yesterday"}', '{"$decimal": "x"}', '{"$uuid": 5}', '{"$timedelta": [1000000000000]}',
        '{"$timezone": "x"}', '{"$defaultdict": ["eval", []]}', '{"$fraction": "1/0"}',
    ],
)  # fmt: skip
def test_not_written_by_dump(text: str) -> None:
    """What `dump` cannot have written is a ValueError."""
    with pytest.raises(ValueError, match=r".+"):
        typed_json.load(json.loads(text))
