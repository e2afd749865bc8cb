"""What is sent, as other client libraries read it, and what is received, as they write it."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import pika.frame
import pytest
from amqp.serialization import loads
from hypothesis import given
from hypothesis import strategies as st
from pika.spec import Basic, BasicProperties

from n6_stateful.output import amqp_frames as frames
from n6_stateful.output.amqp_frames import Fields, FrameError, FrameReader

LONGEST = 4096

short = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
octet = st.integers(0, 255)
value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | short
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short, inner, max_size=3),
    max_leaves=8,
)
properties_ = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("content_type", "content_encoding", "correlation_id", "reply_to", "expiration", "message_id"),
            short,
        ),
        **dict.fromkeys(("type", "user_id", "app_id", "cluster_id"), short),
        **dict.fromkeys(("delivery_mode", "priority"), octet),
        "timestamp": st.integers(0, (1 << 64) - 1),
        "headers": st.dictionaries(short, short, max_size=4),
    },
)


def decoded(data: bytes) -> list[Any]:
    """The frames in `data`, read by pika."""
    found = []
    while data:
        size, frame = pika.frame.decode_frame(data)
        assert frame is not None
        found.append(frame)
        data = data[size:]
    return found


@given(properties=properties_, size=st.integers(0, 3 * LONGEST))
def test_another_client_reads_a_message_as_it_was_given(properties: dict[str, Any], size: int) -> None:
    body = bytes(at % 251 for at in range(size))
    buffers = frames.message(frames.publish(1, "raw", "a.b"), properties, body, LONGEST)
    method, header, *bodies = decoded(b"".join(buffers))

    assert isinstance(method.method, Basic.Publish)
    assert (method.method.exchange, method.method.routing_key) == ("raw", "a.b")
    assert method.method.mandatory
    assert not method.method.immediate
    assert header.body_size == size
    read = {name: each for name, each in vars(header.properties).items() if each is not None}
    assert read == properties
    assert b"".join(each.fragment for each in bodies) == body
    assert {each.channel_number for each in (method, header, *bodies)} == {1}
    assert all(len(each.marshal()) <= LONGEST for each in bodies)


@given(headers=st.dictionaries(short, value, max_size=4))
def test_another_client_reads_headers_as_they_were_given(headers: dict[str, Any]) -> None:
    (read,), _ = loads("F", frames.table(headers), 0)
    assert read == headers


@given(properties=properties_)
def test_what_is_none_is_left_out(properties: dict[str, Any]) -> None:
    method = frames.publish(1, "raw", "a.b")
    with_none = dict.fromkeys(("priority", "app_id", "headers"), None) | properties
    assert frames.message(method, with_none, b"x", LONGEST) == frames.message(
        method, properties, b"x", LONGEST
    )


def test_a_large_body_is_not_copied() -> None:
    body = bytes(1 << 20)
    buffers = frames.message(frames.publish(1, "raw", "a.b"), {}, body, LONGEST)
    assert sum(len(each) for each in buffers if isinstance(each, memoryview) and each.obj is body) == len(
        body
    )


@pytest.mark.parametrize(
    "properties",
    [
        {"no_such_property": "x"},
        {"message_id": "x" * 256},
        {"timestamp": -1},
        {"priority": 256},
        {"content_type": 5},
        {"headers": {"a": object()}},
        {"headers": {"a": 1 << 63}},
        {"headers": {5: "a"}},
    ],
    ids=["unknown", "long", "negative", "large", "no text", "an object", "a large number", "no name"],
)
def test_what_amqp_cannot_hold_is_refused(properties: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(properties))):
        frames.message(frames.publish(1, "raw", "a.b"), properties, b"x", LONGEST)


def test_properties_that_no_frame_can_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="the properties take 5,0"):
        frames.message(frames.publish(1, "raw", "a.b"), {"headers": {"a": "x" * 5_000}}, b"x", LONGEST)


@given(properties=properties_, size=st.integers(0, 1 << 60))
def test_a_returned_message_is_known_by_what_another_client_writes(
    properties: dict[str, Any], size: int
) -> None:
    properties = {name: each for name, each in properties.items() if name != "headers"}
    written = pika.frame.Header(1, size, BasicProperties(**properties)).marshal()
    (frame,) = FrameReader().feed(written)
    assert frame.kind == frames.HEADER
    assert Fields(frame.payload).size_and_message_id() == (size, properties.get("message_id", ""))


@given(cuts=st.sets(st.integers(1, 180)))
def test_frames_are_read_wherever_the_network_cuts_them(cuts: set[int]) -> None:
    written = b"".join(
        pika.frame.Method(1, Basic.Ack(delivery_tag=tag, multiple=tag % 2 == 0)).marshal()
        for tag in range(1, 10)
    )
    reader = FrameReader()
    edges = [0, *sorted(cuts), len(written)]
    found = [frame for begin, end in pairwise(edges) for frame in reader.feed(written[begin:end])]
    tags = []
    for frame in found:
        fields = Fields(frame.payload)
        assert fields.method() == frames.BASIC_ACK
        tags.append(fields.number(8))
    assert tags == list(range(1, 10))


@given(garbage=st.binary(min_size=1, max_size=400))
def test_garbage_is_told_or_waits_for_more(garbage: bytes) -> None:
    try:
        found = FrameReader().feed(garbage)
    except FrameError:
        return
    for frame in found:
        with pytest.raises(FrameError):
            Fields(frame.payload).octets(len(frame.payload) + 1)


def test_a_frame_that_is_too_long_is_not_waited_for() -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(struct.pack(">BHI", frames.BODY, 1, frames.LONGEST_FRAME + 1))


def test_a_frame_without_its_end_is_no_frame() -> None:
    with pytest.raises(FrameError, match="no end"):
        FrameReader().feed(struct.pack(">BHI", frames.METHOD, 1, 4) + b"abcd!")
