"""A connection to something that does not behave as a broker does: it ends, with a reason, in time."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pika import frame, spec

from n6_stateful import PublishError
from n6_stateful.message import Message
from n6_stateful.output.amqp import AmqpOutput
from n6_stateful.output.broker import broker_of_url

SLACK = 4
OPTIONS: dict[str, Any] = {
    "unroutable": "error",
    "declare": False,
    "heartbeat": 0,
    "connect_timeout": 0.4,
    "progress_timeout": 0.4,
    "window_messages": 10,
    "window_bytes": 1 << 20,
    "ssl_ca_certs": "",
    "ssl_certfile": "",
    "ssl_keyfile": "",
}


def method(channel: int, what: Any) -> bytes:
    """A method as a broker sends it."""
    encoded: bytes = frame.Method(channel, what).marshal()
    return encoded


CAPABILITIES = {"publisher_confirms": True, "basic.nack": True, "authentication_failure_close": True}
START = method(
    0,
    spec.Connection.Start(
        server_properties={"capabilities": CAPABILITIES}, mechanisms="PLAIN AMQPLAIN", locales="en_US"
    ),
)


def tune(longest: int) -> bytes:
    return method(0, spec.Connection.Tune(channel_max=2047, frame_max=longest, heartbeat=60))


READY = (
    START,
    tune(5000) + method(0, spec.Connection.OpenOk()),
    method(1, spec.Channel.OpenOk()),
    method(1, spec.Confirm.SelectOk()),
)


class Peer:
    """Something that says its answers, one after the other, each time it hears something, and then listens.

    What it has to say beyond `READY` it says once `go` is set.

    Attributes:
        address: where it listens.
        output: an output that takes it for a broker.
    """

    def __init__(self, answers: tuple[bytes, ...], *, hang_up: bool = False, **options: float) -> None:
        self._answers = answers
        self._hang_up = hang_up
        self.go = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.address = self._listener.getsockname()
        url = f"amqp://127.0.0.1:{self.address[1]}/"
        self.output = AmqpOutput(broker_of_url(url, {**OPTIONS, **options}), {**OPTIONS, **options})

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            for number, answer in enumerate(self._answers):
                if number < len(READY):
                    connection.recv(1 << 16)
                else:
                    assert self.go.wait(SLACK)
                    connection.settimeout(1)
                with suppress(OSError):
                    connection.sendall(answer)
                    continue
                break
            connection.settimeout(None)
            with suppress(OSError):
                while not self._hang_up and connection.recv(1 << 16):
                    pass

    def close(self) -> None:
        """Return when the output has ended the connection."""
        self.output.abort()
        self._thread.join(SLACK)
        assert not self._thread.is_alive()
        self._listener.close()


@contextmanager
def answering(*answers: bytes) -> Iterator[AmqpOutput]:
    """An output whose broker gives these answers; those beyond `READY` once two messages can be in flight."""
    peer = Peer(answers)
    flush = peer.output.flush

    def flush_and_hear() -> None:
        peer.go.set()
        flush()

    peer.output.flush = flush_and_hear  # type: ignore[method-assign]
    try:
        yield peer.output
    finally:
        peer.go.set()
        peer.close()


def publish(output: AmqpOutput, body: bytes) -> None:
    output.publish(Message("raw", "a.b", body, {"message_id": "1" * 32}, ""))


def fails(output: AmqpOutput) -> str:
    """How opening it fails, in time."""
    started = time.monotonic()
    with pytest.raises(PublishError) as caught:
        output.open((), "test", ())
    assert time.monotonic() - started < OPTIONS["connect_timeout"] + SLACK
    assert "nothing was published" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        b"AMQP\x00\x01\x00\x00",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x01\x00\x00\x00\x00\x00\x04abcdX",
        b"\x01\x00\x00\x00\x00\x00\x01\x00\xce",
        b"\x01\x00\x00\x00\x00\x00\x0a\x00\x0a\x00\x0a\x00\x09\xff\xff\xff\xff\xce",
        method(0, spec.Connection.OpenOk()),
        method(7, spec.Basic.Ack(1)),
    ],
    ids=["HTTP", "AMQP 1.0", "SSH", "no end", "short method", "open table", "too early", "no channel"],
)
def test_garbage(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """What does not speak AMQP is one clear error in time, and pika's own noise is not heard."""
    with answering(answer) as output:
        assert "no connection" in fails(output)
    assert not [record for record in caplog.records if record.name.startswith("pika")]


@pytest.mark.parametrize(
    "end", [b"", b"\x03\x00\x01\x00\x10\x00\x00" + bytes(100)], ids=["between frames", "amid a frame"]
)
def test_hang_up(end: bytes) -> None:
    """A broker that hangs up, half-way through a frame too, leaves the message undelivered."""
    peer = Peer((*READY, end), hang_up=True)
    peer.output.open((), "test", ())
    publish(peer.output, b"x")
    peer.go.set()
    with pytest.raises(PublishError) as caught:
        peer.output.flush()
    assert len(caught.value.undelivered) == 1
    peer.close()


def test_endless_frame() -> None:
    """A frame that never ends is not kept in memory without bounds."""
    head = b"\x03\x00\x01\xff\xff\xff\xff"
    peer = Peer((*READY, head + bytes(1 << 20)))
    peer.output.open((), "test", ())
    publish(peer.output, b"x")
    peer.go.set()
    with pytest.raises(PublishError) as caught:
        peer.output.flush()
    assert len(caught.value.undelivered) == 1
    peer.close()


def test_mechanisms() -> None:
    """A broker that lets nobody log in with a password is one clear error."""
    start = START.replace(b"PLAIN AMQPLAIN", b"EXTERNAL SCRAM")
    with answering(start) as output:
        assert "no connection" in fails(output)


@pytest.mark.parametrize("answers", [(), (START,), (START, tune(0))], ids=["at once", "login", "tuning"])
def test_silence(answers: tuple[bytes, ...]) -> None:
    """A broker that goes silent while we log in is waited for as long as connect_timeout says."""
    with answering(*answers) as output:
        assert "connect_timeout" in fails(output)


def test_stray_return() -> None:
    """A return of what was not sent ends the connection, and confirms nothing."""
    returned = method(1, spec.Basic.Return(312, "NO_ROUTE", "raw", "a.b"))
    stray = returned + frame.Header(1, 0, spec.BasicProperties()).marshal()
    with answering(*READY, stray) as output:
        output.open((), "test", ())
        publish(output, b"x")
        with pytest.raises(PublishError, match="returned a message that was not sent") as caught:
            output.flush()
        assert len(caught.value.undelivered) == 1


@pytest.mark.parametrize("tag", [0, 7, 2**63, 2**64 - 1])
@pytest.mark.parametrize("multiple", [False, True])
def test_stray_confirmation(tag: int, multiple: bool) -> None:
    """A confirmation of what was not sent confirms nothing, not what was sent either, and ends at once."""
    with answering(*READY, method(1, spec.Basic.Ack(tag, multiple))) as output:
        output.open((), "test", ())
        publish(output, b"x")
        with pytest.raises(PublishError, match="confirmed a message that was not sent") as caught:
            output.flush()
        assert len(caught.value.undelivered) == 1


def test_confirmations() -> None:
    """One confirmation can be of several messages, in any order with others, and come twice."""
    acks = [spec.Basic.Ack(2), spec.Basic.Ack(2), spec.Basic.Ack(3, True), spec.Basic.Ack(1)]
    with answering(*READY, b"".join(method(1, ack) for ack in acks)) as output:
        output.open((), "test", ())
        for body in (b"a", b"b", b"c"):
            publish(output, body)
        time.sleep(0.1)  # they must be sent before they can be confirmed
        output.flush()


@pytest.mark.parametrize("in_flight", [1, 2])
def test_channel_closed(in_flight: int) -> None:
    """A channel that is closed on the only message in flight has refused that message; on several, none."""
    closing = method(1, spec.Channel.Close(406, "PRECONDITION_FAILED - too large", 60, 40))
    with answering(*READY, closing) as output:
        output.open((), "test", ())
        for _ in range(in_flight):
            publish(output, b"x")
        with pytest.raises(PublishError, match="406 PRECONDITION_FAILED - too large") as caught:
            output.flush()
        assert [each.refused for each in caught.value.undelivered] == (
            [True] if in_flight == 1 else [None, None]
        )


@pytest.mark.parametrize(("code", "is_refusal"), [(501, True), (541, True), (320, False)])
@pytest.mark.parametrize("in_flight", [1, 2])
def test_connection_closed(in_flight: int, code: int, is_refusal: bool) -> None:
    """A connection that the broker closes refuses the only message in flight, unless an operator did."""
    with answering(*READY, method(0, spec.Connection.Close(code, "said why", 0, 0))) as output:
        output.open((), "test", ())
        for _ in range(in_flight):
            publish(output, b"x")
        with pytest.raises(PublishError, match=f"{code} said why") as caught:
            output.flush()
        refused = (True if in_flight == 1 else None) if is_refusal else False
        assert [each.refused for each in caught.value.undelivered] == [refused] * in_flight


def resident_mib() -> float:
    found = re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


RETURN = method(1, spec.Basic.Return(312, "NO_ROUTE", "raw", "a.b"))


@pytest.mark.parametrize(
    "beginning",
    [
        b"\x03\x00\x01\x7f\xff\xff\xff",
        RETURN + frame.Header(1, 1 << 40, spec.BasicProperties()).marshal(),
        b"",
    ],
    ids=["frame", "return", "bodies"],
)
def test_flood(beginning: bytes) -> None:
    """A broker that says more and more ends the run in time, and does not fill the memory."""
    body = frame.Body(1, bytes(1 << 16)).marshal()
    peer = Peer((*READY, beginning, *[body] * 10_000), progress_timeout=3)
    before = resident_mib()
    peer.output.open((), "test", ())
    publish(peer.output, b"x")
    peer.go.set()
    with pytest.raises(PublishError) as caught:
        peer.output.flush()
    assert len(caught.value.undelivered) == 1
    assert resident_mib() - before < 250
    peer.close()


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host is reached by whichever of its addresses answers."""
    peer = Peer(READY, connect_timeout=4)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        refused = nobody.getsockname()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in (refused, peer.address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    peer.output.open((), "test", ())
    peer.close()
