"""Stable message ids: what they depend on, and what they do not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n6_stateful.message_id import MessageIds

BODIES = st.lists(st.binary(max_size=3), max_size=200)


def ids(bodies: list[bytes], source: str = "a.b", generation: str = "g1", exchange: str = "raw") -> list[str]:
    maker = MessageIds()
    return [maker.next(exchange, source, generation, body) for body in bodies]


class TestSame:
    """What gives an id again."""

    @given(BODIES)
    def test_again(self, bodies: list[bytes]) -> None:
        """The same data in the same generation has the same ids."""
        assert ids(bodies) == ids(bodies)

    @given(BODIES)
    def test_grown(self, bodies: list[bytes]) -> None:
        """A record keeps its id when the source grows around it."""
        before = dict(zip(bodies, ids(bodies), strict=True))
        grown = [b"new record", *bodies, b"newer record"]
        after = dict(zip(grown, ids(grown), strict=True))
        assert all(before[body] == after[body] for body in bodies if bodies.count(body) == 1)

    def test_generation(self) -> None:
        """A new generation counts repeated bodies anew."""
        maker = MessageIds()
        first = [maker.next("raw", "a.b", "g1", b"x") for _ in range(3)]
        maker.next("raw", "a.b", "g2", b"x")
        assert [maker.next("raw", "a.b", "g1", b"x") for _ in range(3)] == first


class TestOther:
    """What gives another id."""

    @given(BODIES)
    def test_bodies(self, bodies: list[bytes]) -> None:
        """No two messages of a generation share an id, repeated bodies included."""
        assert len(set(ids(bodies))) == len(bodies)

    def test_repeats(self) -> None:
        """Repeats are told apart among many bodies, too, and always in the same way."""
        bodies = [b"%d" % number for number in range(5_000)] * 3
        made = ids(bodies)
        assert len(set(made)) == len(bodies)
        assert made == ids(bodies)

    def test_looks_like_repeat(self) -> None:
        """A body that ends like the count of a repeat has an id of its own."""
        bodies = [b"x", b"x", b"x\x001", b"x\x002", b"x"]
        assert len(set(ids(bodies))) == len(bodies)

    @pytest.mark.parametrize("other", [{"generation": "g2"}, {"source": "a.c"}, {"exchange": "copy"}])
    def test_address(self, other: dict[str, str]) -> None:
        """The generation, the routing key and the exchange are part of an id."""
        assert not set(ids([b"x", b"y"])) & set(ids([b"x", b"y"], **other))

    def test_parts(self) -> None:
        """The parts do not run into each other."""
        assert ids([b"x"], "a.b", "cg") != ids([b"x"], "a.bc", "g")
        assert ids([b"gx"], "a.b", "") != ids([b"x"], "a.b", "g")
        assert ids([b"x"], "a\0b", "c") != ids([b"x"], "a", "b\0c")


def test_width() -> None:
    """Ids have the width of n6's."""
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids([b"", b"", b"x"]))
