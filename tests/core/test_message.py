"""What a message may hold, and which id it gets."""

from __future__ import annotations

import enum
import io
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n6_stateful import CollectorError, Download
from n6_stateful.message import NUMBERS, TEXTS, MessageIds, as_body, checked_properties, short_string

BODIES = st.lists(st.binary(max_size=3), max_size=200)


def ids(bodies: list[bytes], source: str = "a.b", base: str = "1:x", exchange: str = "raw") -> list[str]:
    maker = MessageIds()
    return [maker.next(exchange, source, base, body) for body in bodies]


class TestIds:
    """Stable message ids."""

    @given(BODIES)
    def test_same(self, bodies: list[bytes]) -> None:
        """The same data from the same base has the same ids, of n6's width, and no two messages share one."""
        made = ids(bodies)
        assert made == ids(bodies)
        assert len(set(made)) == len(bodies)
        assert all(re.fullmatch("[0-9a-f]{32}", id) for id in made)

    @given(BODIES)
    def test_grown(self, bodies: list[bytes]) -> None:
        """A record keeps its id when the source grows around it."""
        before = dict(zip(bodies, ids(bodies), strict=True))
        grown = [b"new record", *bodies, b"newer record"]
        after = dict(zip(grown, ids(grown), strict=True))
        assert all(before[body] == after[body] for body in bodies if bodies.count(body) == 1)

    def test_looks_like_repeat(self) -> None:
        """A body that ends like the count of a repeat has an id of its own."""
        bodies = [b"x", b"x", b"x\x001", b"x\x002", b"x"]
        assert len(set(ids(bodies))) == len(bodies)

    @pytest.mark.parametrize("other", [{"base": "2:x"}, {"source": "a.c"}, {"exchange": "copy"}])
    def test_scope(self, other: dict[str, str]) -> None:
        """The base, the routing key and the exchange are part of an id, and do not run into each other."""
        assert not set(ids([b"x", b"y"])) & set(ids([b"x", b"y"], **other))
        assert ids([b"x"], "a.b", "cg") != ids([b"x"], "a.bc", "g")


class Convertible:
    def __bytes__(self) -> bytes:
        return b"converted"


class Text(enum.StrEnum):
    A = "a.b"


class TestBody:
    """What a body may be."""

    @pytest.mark.parametrize("body", [b"x", Download(b"x", time_utc=1), bytearray(b"x"), memoryview(b"x")])
    def test_bytes(self, body: Any) -> None:
        """Bytes, and what has __bytes__, become plain bytes."""
        assert (as_body(body), type(as_body(body))) == (b"x", bytes)
        assert as_body(Convertible()) == b"converted"

    @pytest.mark.parametrize("body", ["text", 5, None, {"a": 1}, [b"x"], io.BytesIO(b"x"), b""])
    def test_other(self, body: Any) -> None:
        """Anything else is refused, and so is an empty body."""
        with pytest.raises(CollectorError, match=r"must be bytes|is empty; raise NothingNew"):
            as_body(body)


class TestProperties:
    """AMQP's properties of a message."""

    def test_every_property(self) -> None:
        """Every property that AMQP has for messages can be given; None and empty headers are left out."""
        all_of_them = {"headers": {"a": 1}, **dict.fromkeys(NUMBERS, 1), **dict.fromkeys(TEXTS, "1")}
        assert checked_properties(all_of_them) == all_of_them
        assert checked_properties({"headers": {}, "type": None}) == {}

    def test_copied(self) -> None:
        """Headers are copied, as the plain types of JSON."""
        headers = {Text.A: [Text.A, True, -(2**63), (1, {"deep": None})]}
        copy = checked_properties({"headers": headers})["headers"]
        assert repr(copy) == repr({"a.b": ["a.b", True, -(2**63), [1, {"deep": None}]]})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("no_such_property", 1),
            ("delivery_mode", 3),
            ("delivery_mode", True),
            ("priority", 256),
            ("timestamp", 1.5),
            ("timestamp", -1),
            ("content_type", 5),
            ("type", "x" * 256),
            ("type", "\ud800"),
            ("type", "a\0b"),
            ("headers", [1]),
            ("headers", {"a": "\ud800"}),
            ("headers", {"a": object()}),
            ("headers", {"a": 1.5}),
            ("headers", {"a": b"bytes"}),
            ("headers", {"a": 2**63}),
            ("headers", {1: "a"}),
            ("headers", {"x" * 256: 1}),
            ("headers", {"a": {"b": [object()]}}),
        ],
    )
    def test_impossible(self, name: str, value: Any) -> None:
        """A value that AMQP or the journal cannot hold is refused, with the name of the property."""
        with pytest.raises(CollectorError, match=f"AMQP.*{name}.*nothing was published"):
            checked_properties({name: value})

    @pytest.mark.parametrize("routing_key", ["r" * 256, "\ud800", 5])
    def test_short_string(self, routing_key: Any) -> None:
        """A routing key that AMQP cannot hold is refused."""
        with pytest.raises(CollectorError, match="AMQP cannot hold the routing key"):
            short_string("routing key", routing_key)
