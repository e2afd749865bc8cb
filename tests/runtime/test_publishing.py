"""One run's publishing: what reaches the output, and what a run is when it returns or raises."""

from __future__ import annotations

import bisect
import datetime
import decimal
import enum
import io
import signal
import sqlite3
import subprocess
import sys
import threading
import zoneinfo
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pika
import pytest

from n6_stateful import CollectorError, Download, NothingNew, PublishError, QueuedBase
from n6_stateful.errors import Terminated
from n6_stateful.interruption import signals_raise
from n6_stateful.message import NUMBERS, TEXTS, Message, checked_properties
from n6_stateful.testing import MemoryOutput


class Publisher(QueuedBase):
    output_queue: Any = {"exchange": "raw", "exchange_type": "topic"}

    def __init__(self, publish: Callable[[Publisher], object], output: MemoryOutput | None = None) -> None:
        super().__init__()
        self._publish = publish
        self.memory = output or MemoryOutput()

    def make_output(self) -> MemoryOutput:
        return self.memory

    def start_publishing(self) -> None:
        self._publish(self)


def delivered(publish: Callable[[Publisher], object]) -> list[Message]:
    """What arrives when a run publishes so."""
    publisher = Publisher(publish)
    publisher.run()
    return publisher.memory.delivered


def properties_of(prop_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The properties with which a message that is given these arrives."""
    (message,) = delivered(lambda publisher: publisher.publish_output("a.b", b"x", prop_kwargs))
    return message.properties


def nested(levels: int) -> dict[str, Any]:
    """Headers that are so deep."""
    headers: dict[str, Any] = {}
    for _ in range(levels):
        headers = {"a": headers}
    return headers


class Convertible:
    def __bytes__(self) -> bytes:
        return b"converted"


class TestBody:
    """What a body may be."""

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b"plain", b"plain"),
            (Download(b"of a subclass", time_utc=1), b"of a subclass"),
            (bytearray(b"array"), b"array"),
            (memoryview(b"view"), b"view"),
            (Convertible(), b"converted"),
        ],
    )
    def test_bytes(self, body: Any, expected: bytes) -> None:
        """Bytes, and what has __bytes__, arrive as bytes."""
        (message,) = delivered(lambda publisher: publisher.publish_output("a.b", body))
        assert message.body == expected

    @pytest.mark.parametrize("body", ["text", 5, None, 1.5, {"a": 1}, [b"x"], io.BytesIO(b"x"), object()])
    def test_other(self, body: Any) -> None:
        """Anything else is refused, and nothing is published."""
        publisher = Publisher(lambda self: self.publish_output("a.b", body))
        with pytest.raises(CollectorError, match="must be bytes"):
            publisher.run()
        assert not publisher.memory.delivered

    def test_empty(self) -> None:
        """An empty body is a slip, and refused."""
        with pytest.raises(CollectorError, match="empty; raise NothingNew"):
            delivered(lambda self: self.publish_output("a.b", b""))


class TestProperties:
    """What a message may be given along."""

    def test_defaults(self) -> None:
        """Messages are persistent, and empty headers are left out."""
        found = properties_of({"headers": {}, "type": "stream"})
        assert found.pop("message_id")
        assert found == {"delivery_mode": 2, "type": "stream"}

    def test_kept(self) -> None:
        """Headers of every type that AMQP knows arrive with their types."""
        moment = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
        headers = {
            "text": "ż",
            "bytes": b"\xff",
            "yes": True,
            "number": -(2**63),
            "decimal": decimal.Decimal("1.25"),
            "time": moment,
            "list": [1, {"deep": None}],
        }
        assert properties_of({"headers": headers})["headers"] == headers

    def test_plain(self) -> None:
        """Of a type made from a plain one, such as an enum of texts, the plain value arrives."""

        class Text(enum.StrEnum):
            A = "a.b"

        class Odd(bytes):
            """Bytes of another name."""

        class Exact(decimal.Decimal):
            """A number of another name."""

        given = {"content_type": Text.A, "headers": {Text.A: [Text.A, Odd(b"x"), Exact(1)]}}
        (message,) = delivered(
            lambda self: self.publish_output(Text.A, b"x", {**given, "message_id": Text.A})
        )
        plain = {"content_type": "a.b", "headers": {"a.b": ["a.b", b"x", decimal.Decimal(1)]}}
        assert repr(message[:2]) == repr(("raw", "a.b"))
        assert repr(message.properties) == repr({"delivery_mode": 2, **plain, "message_id": "a.b"})

    def test_none(self) -> None:
        """A property that is None is left out, as AMQP clients have it."""
        assert "content_type" not in properties_of({"content_type": None})

    def test_zone(self) -> None:
        """Of a time zone AMQP keeps the moment only, and so does every output."""
        moment = datetime.datetime(2026, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Warsaw"))
        (kept,) = properties_of({"headers": {"time": moment}})["headers"].values()
        assert (kept, kept.tzinfo) == (moment, datetime.UTC)

    def test_snapshot(self) -> None:
        """A message is what it was when it was published, whatever becomes of its headers afterwards."""

        def publish(publisher: Publisher) -> None:
            headers: dict[str, Any] = {"meta": {"number": 0}}
            for number in range(3):
                headers["meta"]["number"] = number
                publisher.publish_output("a.b", b"x", {"headers": headers})

        arrived = [message.properties["headers"]["meta"]["number"] for message in delivered(publish)]
        assert arrived == [0, 1, 2]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("no_such_property", 1),
            ("expiration", "1h"),
            ("expiration", 1000),
            ("expiration", str(2**32)),
            ("expiration", "9" * 5000),
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
            ("headers", {"a": datetime.datetime(1969, 12, 31)}),
            ("headers", {"a": decimal.Decimal("999999999.5")}),
            ("headers", {"a": decimal.Decimal("1e9999999999")}),
            ("headers", nested(5_000)),
            ("headers", {"a": object()}),
            ("headers", {"a": 1.5}),
            ("headers", {"a": (1, 2)}),
            ("headers", {"a": 2**63}),
            ("headers", {"a": decimal.Decimal("1e-300")}),
            ("headers", {"a": decimal.Decimal("NaN")}),
            ("headers", {1: "a"}),
            ("headers", {"x" * 256: 1}),
            ("headers", {"a": {"b": [object()]}}),
            ("headers", {"a": "x" * 128_000}),
        ],
    )
    def test_impossible(self, name: str, value: Any) -> None:
        """What AMQP cannot hold is refused before anything is sent, by the name of the property."""

        def publish(publisher: Publisher) -> None:
            with pytest.raises(CollectorError, match=f"AMQP.*{name}"):
                publisher.publish_output("a.b", b"bad", {name: value})
            publisher.publish_output("a.b", b"good")

        assert [message.body for message in delivered(publish)] == [b"good"]

    @pytest.mark.parametrize(
        "make",
        [
            lambda count: {"a": "x" * count},
            lambda count: {"a": {"ż": "ż" * count}},
            lambda count: {"a": b"\0" * count},
            lambda count: {f"ż{number}": True for number in range(count)},
            lambda count: {"a": [2**62, {}, None, "", decimal.Decimal(1), [b""]] * count},
        ],
        ids=["text", "not ASCII", "bytes", "keys", "list"],
    )
    def test_large_headers(self, make: Callable[[int], dict[str, Any]]) -> None:
        """Headers are taken as long as they fit into a frame of RabbitMQ's, whatever else is given."""

        def is_refused(count: int) -> bool:
            try:
                checked_properties({"headers": make(count)})
            except CollectorError:
                return True
            return False

        count = bisect.bisect(range(200_000), False, key=is_refused)
        others = dict.fromkeys(NUMBERS, 1) | dict.fromkeys(TEXTS, "1" * 255)
        frames = [
            len(pika.frame.Header(1, 2**62, pika.BasicProperties(headers=make(each), **others)).marshal())
            for each in (count - 1, count * 2)
        ]
        assert frames[0] <= pika.spec.FRAME_MAX_SIZE < frames[1]

    def test_every_property(self) -> None:
        """Every property that AMQP has for messages can be given."""
        given = {"headers": {"a": 1}, **dict.fromkeys(NUMBERS, 1), **dict.fromkeys(TEXTS, "1")}
        assert properties_of(given) == given


class TestRouting:
    """Where a message goes."""

    QUEUES = ({"exchange": "raw", "exchange_type": "topic"}, {"exchange": "copy", "exchange_type": "fanout"})

    def test_default(self) -> None:
        """The first exchange of output_queue is the default."""

        def publish(publisher: Publisher) -> None:
            publisher.publish_output("a.b", b"1")
            publisher.publish_output("a.b", b"1", exchange="copy")

        publisher = Publisher(publish)
        publisher.output_queue = list(self.QUEUES)
        publisher.run()
        raw, copy = publisher.memory.delivered
        assert (raw.exchange, copy.exchange) == ("raw", "copy")
        assert raw.properties["message_id"] != copy.properties["message_id"]

    def test_unknown(self) -> None:
        """An exchange that output_queue does not name is refused."""
        with pytest.raises(CollectorError, match="does not name the exchange 'other'"):
            delivered(lambda self: self.publish_output("a.b", b"x", exchange="other"))

    @pytest.mark.parametrize("routing_key", ["r" * 256, "\ud800"])
    def test_routing_key(self, routing_key: str) -> None:
        """A routing key that AMQP cannot hold is refused."""
        with pytest.raises(CollectorError, match="AMQP cannot hold the routing key"):
            delivered(lambda self: self.publish_output(routing_key, b"x"))

    def test_none(self) -> None:
        """A collector without an exchange is refused."""
        publisher = Publisher(lambda self: None)
        publisher.output_queue = None
        with pytest.raises(CollectorError, match="output_queue"):
            publisher.run()


class TestIds:
    """The ids of messages that have none of their own."""

    def test_repeats(self) -> None:
        """Two messages with the same body have two ids, and publish_output tells them."""
        told: list[str] = []
        arrived = delivered(lambda self: told.extend(self.publish_output("a.b", b"same") for _ in range(2)))
        assert told == [message.properties["message_id"] for message in arrived]
        assert len(set(told)) == 2

    def test_own(self) -> None:
        """An id that the collector gives is kept."""
        assert properties_of({"message_id": "mine"})["message_id"] == "mine"

    def test_run_again(self) -> None:
        """A run that is repeated in the same process gives the same data the same ids."""

        def publish(publisher: Publisher) -> None:
            told.append(publisher.publish_output("a.b", b"x"))
            raise ZeroDivisionError

        told: list[str] = []
        publisher = Publisher(publish)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                publisher.run()
        assert told[0] == told[1]

    def test_next_run(self) -> None:
        """Without a state the next run, after one that ended well, is another generation."""
        publisher = Publisher(lambda self: self.publish_output("a.b", b"x"))
        publisher.run()
        publisher.run()
        first, second = (message.properties["message_id"] for message in publisher.memory.delivered)
        assert first != second

    def test_without_state(self) -> None:
        """Without a state each collector object is a generation of its own."""
        first, second = (properties_of({})["message_id"] for _ in range(2))
        assert first != second


class TestRun:
    """What `run` does when it returns or raises."""

    def test_many(self) -> None:
        """Messages arrive in the order in which they were published."""
        arrived = delivered(
            lambda self: [self.publish_output("a.b", b"%d" % number) for number in range(100)]
        )
        assert [message.body for message in arrived] == [b"%d" % number for number in range(100)]

    def test_nothing_new(self) -> None:
        """NothingNew ends the run well, and keeps what was published before."""

        def publish(publisher: Publisher) -> None:
            publisher.publish_output("a.b", b"new")
            raise NothingNew

        assert [message.body for message in delivered(publish)] == [b"new"]

    def test_failing(self) -> None:
        """What start_publishing raises comes out, and the output is given up."""

        def publish(publisher: Publisher) -> None:
            publisher.publish_output("a.b", b"given up")
            raise ZeroDivisionError

        publisher = Publisher(publish)
        with pytest.raises(ZeroDivisionError):
            publisher.run()
        assert not publisher.memory.delivered

    def test_refused(self) -> None:
        """A run raises when the output does not take everything."""
        publisher = Publisher(lambda self: self.publish_output("a.b", b"x"), MemoryOutput(fails=True))
        with pytest.raises(PublishError) as caught:
            publisher.run()
        (lost,) = caught.value.undelivered
        assert (lost.routing_key, lost.size) == ("a.b", 1)

    def test_flush(self) -> None:
        """flush_output returns when everything published so far has arrived."""
        arrived = []

        def publish(publisher: Publisher) -> None:
            publisher.publish_output("a.b", b"x")
            publisher.flush_output()
            arrived.extend(publisher.memory.delivered)

        delivered(publish)
        assert len(arrived) == 1

    def test_check_before_publishing(self) -> None:
        """check_before_publishing is called once a run, and what it raises comes before the first message."""

        class Checking(Publisher):
            checks = 0

            def check_before_publishing(self) -> None:
                self.checks += 1
                if self.checks == 2:
                    raise ZeroDivisionError

        publisher = Checking(lambda self: [self.publish_output("a.b", b"x") for _ in range(2)])
        publisher.run()
        assert (publisher.checks, len(publisher.memory.delivered)) == (1, 2)
        with pytest.raises(ZeroDivisionError):
            publisher.run()
        assert len(publisher.memory.delivered) == 2

    def test_problem(self) -> None:
        """What a person must see to, although all is safe, is told after the run."""
        publisher = Publisher(lambda self: None)
        publisher.memory.problem = "one message was set apart"
        publisher.run()
        assert publisher.delivery_problem == "one message was set apart"


class TestMisuse:
    """Publishing when, or from where, it cannot be."""

    def test_after_inner_stop(self) -> None:
        """Publishing after inner_stop is refused."""

        def publish(publisher: Publisher) -> None:
            publisher.inner_stop()
            publisher.publish_output("a.b", b"late")

        with pytest.raises(CollectorError, match="after inner_stop"):
            Publisher(publish).run()

    def test_outside_run(self) -> None:
        """Publishing outside run is refused."""
        with pytest.raises(CollectorError, match="outside run"):
            Publisher(lambda self: None).publish_output("a.b", b"x")

    def test_another_thread(self) -> None:
        """Only the thread that called run may publish."""
        errors: list[str] = []

        def publish_elsewhere(publisher: Publisher) -> None:
            with pytest.raises(CollectorError) as caught:
                publisher.publish_output("a.b", b"x")
            errors.append(str(caught.value))

        def publish(publisher: Publisher) -> None:
            thread = threading.Thread(target=publish_elsewhere, args=(publisher,))
            thread.start()
            thread.join()

        assert delivered(publish) == []
        assert "only the thread that called run() may publish" in errors[0]

    def test_flush_elsewhere(self) -> None:
        """Nor may another thread save a state, and so flush."""

        def publish(publisher: Publisher) -> None:
            publisher.publish_output("a.b", b"x")
            with ThreadPoolExecutor() as pool, pytest.raises(CollectorError, match="only the thread"):
                pool.submit(publisher.flush_output).result()

        assert len(delivered(publish)) == 1

    @pytest.mark.parametrize("does", ["return", "publish_output('a.b', b'child')", "flush_output()", "exit"])
    def test_forked(self, does: str, tmp_path: Path) -> None:
        """A child that a download forked, and that comes back, publishes nothing and harms no transaction."""
        program = f"""
import os, sys
from pathlib import Path
from n6_stateful import QueuedBase
from n6_stateful.output.spool import Spool

class Forking(QueuedBase):
    output_queue = {{"exchange": "raw"}}
    def make_output(self):
        return Spool(Path({str(tmp_path / "spool")!r}))
    def start_publishing(self):
        for number in range(20):
            self.publish_output("a.b", bytes(1 << 20))
        child = os.fork()
        if not child:
            if {does!r} == "exit":
                sys.exit(0)
            elif {does!r} != "return":
                eval({"self." + does!r})
            return
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        for number in range(20):
            self.publish_output("a.b", bytes(1 << 20))

Forking().run()
print("done")
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
        assert "a forked child came back into run()" in done.stderr
        database = sqlite3.connect(tmp_path / "spool")
        assert database.execute("SELECT count(*) FROM message").fetchone() == (40,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()


class TestInterruption:
    """A signal that a collector swallows."""

    @pytest.mark.parametrize(
        ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
    )
    @pytest.mark.parametrize("then", ["publish", "flush", "end"])
    def test_swallowed(self, number: signal.Signals, raised: type[BaseException], then: str) -> None:
        """It is raised again where the collector publishes, flushes or ends, and nothing arrives."""

        def publish(publisher: Publisher) -> None:
            publisher.publish_output("a.b", b"before")
            with pytest.raises(raised):
                signal.raise_signal(number)
            if then == "publish":
                publisher.publish_output("a.b", b"after")
            elif then == "flush":
                publisher.flush_output()

        publisher = Publisher(publish)
        with signals_raise(), pytest.raises(raised):
            publisher.run()
        assert not publisher.memory.delivered
