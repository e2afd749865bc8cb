"""Stable message ids: what they depend on, and what they do not."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from n6_stateful.message_id import MessageIds

BODIES = st.lists(st.binary(max_size=3), max_size=200)


def ids(bodies: list[bytes], source: str = "a.b", generation: str = "g1") -> list[str]:
    maker = MessageIds()
    return [maker.next("raw", source, generation, body) for body in bodies]


@given(BODIES)
def test_the_same_data_in_the_same_generation_has_the_same_ids(bodies: list[bytes]) -> None:
    assert ids(bodies) == ids(bodies)


@given(BODIES)
def test_no_two_messages_of_a_generation_share_an_id(bodies: list[bytes]) -> None:
    assert len(set(ids(bodies))) == len(bodies)


@given(BODIES)
def test_a_record_keeps_its_id_when_the_source_grows_around_it(bodies: list[bytes]) -> None:
    before = dict(zip(bodies, ids(bodies)[: len(bodies)], strict=True))
    grown = [b"new record", *bodies, b"newer record"]
    after = dict(zip(reversed(grown), reversed(ids(grown)), strict=True))
    first_after = {body: after[body] for body in bodies if bodies.count(body) == 1}
    assert all(before[body] == message_id for body, message_id in first_after.items())


def test_the_same_data_in_another_generation_has_other_ids() -> None:
    assert not set(ids([b"x", b"y"], generation="g1")) & set(ids([b"x", b"y"], generation="g2"))


def test_the_same_data_from_another_source_has_other_ids() -> None:
    assert ids([b"x"], source="a.b") != ids([b"x"], source="a.c")


def test_the_same_data_to_another_exchange_has_another_id() -> None:
    """The exchange is part of an id, so that two copies cannot swap theirs over a crash."""
    assert MessageIds().next("raw", "a.b", "g", b"x") != MessageIds().next("copy", "a.b", "g", b"x")


def test_source_generation_and_body_do_not_run_into_each_other() -> None:
    assert ids([b"x"], "a.b", "cg") != ids([b"x"], "a.bc", "g")
    assert ids([b"gx"], "a.b", "") != ids([b"x"], "a.b", "g")


def test_a_new_generation_counts_repeated_bodies_anew() -> None:
    maker = MessageIds()
    first = [maker.next("raw", "a.b", "g1", b"x") for _ in range(3)]
    maker.next("raw", "a.b", "g2", b"x")
    assert [maker.next("raw", "a.b", "g1", b"x") for _ in range(3)] == first


def test_ids_have_the_width_of_n6s() -> None:
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids([b"", b"", b"x"]))


def test_repeats_are_still_told_apart_among_many_bodies() -> None:
    bodies = [b"%d" % number for number in range(5_000)] * 2
    made = ids(bodies)
    assert len(set(made)) == len(bodies)
    assert made == ids(bodies)
