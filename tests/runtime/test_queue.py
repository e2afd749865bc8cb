"""One run's publishing: what reaches the output, and what a run is when it returns or raises."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from n6_stateful import CollectorError, NothingNew, PublishError, QueuedBase
from n6_stateful.message import Message
from n6_stateful.testing import MemoryOutput


class Publisher(QueuedBase):
    output_queue: Any = {"exchange": "raw", "exchange_type": "topic"}

    def __init__(self, publish: Callable[[Publisher], None], output: MemoryOutput | None = None) -> None:
        super().__init__()
        self._publish = publish
        self.memory = output or MemoryOutput()

    def make_output(self) -> MemoryOutput:
        return self.memory

    def start_publishing(self) -> None:
        self._publish(self)


def delivered(publish: Callable[[Publisher], None]) -> list[Message]:
    publisher = Publisher(publish)
    publisher.run()
    return publisher.memory.delivered


def publish_body(body: Any) -> bytes:
    (message,) = delivered(lambda publisher: publisher.publish_output("a.b", body))
    return message.body


class Convertible:
    def __bytes__(self) -> bytes:
        return b"converted"


class BytesSubclass(bytes):
    pass


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"plain", b"plain"),
        (BytesSubclass(b"of a subclass"), b"of a subclass"),
        (bytearray(b"array"), b"array"),
        (memoryview(b"view"), b"view"),
        (Convertible(), b"converted"),
        (io.BytesIO(b"from a file"), b"from a file"),
        ([b"one, ", b"two"], b"one, two"),
        ((part for part in (b"one, ", b"two")), b"one, two"),
        ([110, 54], b"n6"),
        (b"", b""),
    ],
)
def test_a_body_may_be_whatever_bytes_takes(body: Any, expected: bytes) -> None:
    assert publish_body(body) == expected


@pytest.mark.parametrize(
    "body",
    ["text", 5, None, 1.5, {"a": 1}, ["text"], [300], io.StringIO("text"), object()],
)
def test_a_body_that_is_not_bytes_is_refused_and_nothing_is_published(body: Any) -> None:
    publisher = Publisher(lambda self: self.publish_output("a.b", body))
    with pytest.raises(CollectorError, match="has to be bytes"):
        publisher.run()
    assert not publisher.memory.delivered


def test_a_run_may_publish_many_messages() -> None:
    def publish(publisher: Publisher) -> None:
        for number in range(100):
            publisher.publish_output("a.b", b"%d" % number)

    assert [message.body for message in delivered(publish)] == [b"%d" % number for number in range(100)]


def test_messages_are_persistent_by_default_and_empty_headers_are_left_out() -> None:
    (message,) = delivered(lambda self: self.publish_output("a.b", b"", {"headers": {}, "type": "stream"}))
    assert message.properties["delivery_mode"] == 2
    assert message.properties["type"] == "stream"
    assert "headers" not in message.properties


def test_headers_that_say_something_are_kept() -> None:
    (message,) = delivered(lambda self: self.publish_output("a.b", b"", {"headers": {"meta": 1}}))
    assert message.properties["headers"] == {"meta": 1}


def test_a_message_without_an_id_gets_one_of_its_own() -> None:
    def publish(publisher: Publisher) -> None:
        publisher.publish_output("a.b", b"same")
        publisher.publish_output("a.b", b"same")

    first, second = delivered(publish)
    assert first.properties["message_id"] != second.properties["message_id"]


def test_the_first_exchange_of_output_queue_is_the_default() -> None:
    class Two(Publisher):
        output_queue = [
            {"exchange": "raw", "exchange_type": "topic"},
            {"exchange": "copy", "exchange_type": "fanout"},
        ]

    def publish(publisher: Publisher) -> None:
        publisher.publish_output("a.b", b"1")
        publisher.publish_output("a.b", b"2", exchange="copy")

    publisher = Two(publish)
    publisher.run()
    assert [message.exchange for message in publisher.memory.delivered] == ["raw", "copy"]


def test_nothing_new_ends_the_run_well_and_keeps_what_was_published_before() -> None:
    def publish(publisher: Publisher) -> None:
        publisher.publish_output("a.b", b"new")
        raise NothingNew

    assert [message.body for message in delivered(publish)] == [b"new"]


def test_run_raises_what_start_publishing_raises_and_gives_up_the_output() -> None:
    def publish(publisher: Publisher) -> None:
        publisher.publish_output("a.b", b"given up")
        raise ZeroDivisionError

    publisher = Publisher(publish)
    with pytest.raises(ZeroDivisionError):
        publisher.run()
    assert not publisher.memory.delivered


def test_run_raises_when_the_output_does_not_take_everything() -> None:
    publisher = Publisher(lambda self: self.publish_output("a.b", b"x"), MemoryOutput(fails=True))
    with pytest.raises(PublishError) as caught:
        publisher.run()
    (lost,) = caught.value.undelivered
    assert (lost.routing_key, lost.size) == ("a.b", 1)


def test_flush_output_returns_when_all_that_was_published_has_arrived() -> None:
    arrived = []

    def publish(publisher: Publisher) -> None:
        publisher.publish_output("a.b", b"x")
        publisher.flush_output()
        arrived.extend(publisher.memory.delivered)

    delivered(publish)
    assert len(arrived) == 1


def test_publishing_after_inner_stop_is_refused() -> None:
    def publish(publisher: Publisher) -> None:
        publisher.inner_stop()
        publisher.publish_output("a.b", b"late")

    with pytest.raises(CollectorError, match="after inner_stop"):
        Publisher(publish).run()


def test_publishing_outside_run_is_refused() -> None:
    with pytest.raises(CollectorError, match="outside run"):
        Publisher(lambda self: None).publish_output("a.b", b"x")


def test_a_collector_can_run_again() -> None:
    def publish(publisher: Publisher) -> None:
        publisher.publish_output("a.b", b"x")
        publisher.inner_stop()

    publisher = Publisher(publish)
    publisher.run()
    publisher.run()
    assert len(publisher.memory.delivered) == 2


def test_without_a_state_each_run_of_the_process_is_a_generation_of_its_own() -> None:
    ids = [
        delivered(lambda self: self.publish_output("a.b", b"x"))[0].properties["message_id"] for _ in range(2)
    ]
    assert ids[0] != ids[1]


def test_a_collector_without_an_exchange_is_refused() -> None:
    class Nowhere(Publisher):
        output_queue = None

    with pytest.raises(CollectorError, match="output_queue"):
        Nowhere(lambda self: None).run()
