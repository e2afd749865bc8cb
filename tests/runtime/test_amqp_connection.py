"""A connection to something that does not behave as a broker does: it ends, with a reason, in time."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from n6_stateful import PublishError
from n6_stateful.message import Message
from n6_stateful.output import amqp_frames as frames
from n6_stateful.output.amqp import AmqpOutput
from n6_stateful.output.broker import Login

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

START = frames.method(
    0,
    frames.CONNECTION_START,
    b"\0\x09",
    frames.table({}),
    frames.long_string(b"PLAIN AMQPLAIN"),
    frames.long_string(b"en_US"),
)


def tune(longest: int) -> bytes:
    return frames.method(0, frames.CONNECTION_TUNE, struct.pack(">HIH", 2047, longest, 60))


READY = (
    START,
    tune(5000),
    frames.method(0, frames.CONNECTION_OPEN_OK, b"\0"),
    frames.method(1, (20, 11), frames.long_string(b"")) + frames.method(1, frames.CONFIRM_SELECT_OK),
)


class Peer:
    """Something that says its answers, one after the other, each time it hears something, and then listens.

    Attributes:
        address: where it listens.
        heard: all that it heard.
        output: an output that takes it for a broker.
    """

    def __init__(self, answers: tuple[bytes, ...], **options: float) -> None:
        self.heard = b""
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.address = self._listener.getsockname()
        url = f"amqp://127.0.0.1:{self.address[1]}/"
        self.output = AmqpOutput(Login.from_url(url, OPTIONS), {**OPTIONS, **options})

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            for answer in self._answers:
                self.heard += connection.recv(1 << 16)
                connection.sendall(answer)
            while data := connection.recv(1 << 16):
                self.heard += data

    def close(self) -> None:
        """Return when the output has ended the connection."""
        self.output.abort()
        self._thread.join(SLACK)
        assert not self._thread.is_alive()
        self._listener.close()


@contextmanager
def answering(*answers: bytes) -> Iterator[AmqpOutput]:
    """An output whose broker gives these answers."""
    peer = Peer(answers)
    try:
        yield peer.output
    finally:
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
        frames.frame(frames.METHOD, 0, b"\0"),
        frames.method(0, frames.CONNECTION_START, b"\0\x09\xff\xff\xff\xff"),
    ],
    ids=["HTTP", "AMQP 1.0", "SSH", "no end", "a short method", "a table without its end"],
)
def test_what_does_not_speak_amqp_is_told_as_that(answer: bytes) -> None:
    with answering(answer) as output:
        assert "does not speak AMQP 0-9-1" in fails(output)


def test_a_broker_that_lets_nobody_log_in_with_a_password_is_told_as_that() -> None:
    start = START.replace(b"PLAIN AMQPLAIN", b"EXTERNAL SCRAM")
    with answering(start) as output:
        assert "lets nobody log in with PLAIN, but with EXTERNAL or SCRAM" in fails(output)


def test_frames_too_short_for_amqp_are_refused() -> None:
    with answering(START, tune(100)) as output:
        assert "frames of 100 bytes" in fails(output)


@pytest.mark.parametrize("answers", [(), (START,), (START, tune(0))], ids=["at once", "login", "tuning"])
def test_one_that_goes_silent_while_we_log_in_is_waited_for_so_long(answers: tuple[bytes, ...]) -> None:
    with answering(*answers) as output:
        assert "connect_timeout" in fails(output)


def test_a_return_of_what_was_not_sent_ends_the_connection() -> None:
    stray = frames.method(
        1,
        frames.BASIC_RETURN,
        b"\x01\x38",
        frames.short_string("NO_ROUTE"),
        frames.short_string("raw"),
        frames.short_string("a.b"),
    ) + frames.frame(frames.HEADER, 1, struct.pack(">HHQH", 60, 0, 5, 0))
    with answering(*READY, stray) as output:
        output.open((), "test", ())
        publish(output, b"x")
        with pytest.raises(PublishError, match="it returns a message that was not sent") as caught:
            output.flush()
        assert len(caught.value.undelivered) == 1


def test_one_that_confirms_what_was_not_sent_confirms_nothing() -> None:
    with answering(*READY, frames.method(1, frames.BASIC_ACK, struct.pack(">QB", 7, 0))) as output:
        output.open((), "test", ())
        publish(output, b"x")
        with pytest.raises(PublishError, match="progress_timeout") as caught:
            output.flush()
        assert len(caught.value.undelivered) == 1


def test_frames_are_as_short_as_the_broker_wants_them() -> None:
    peer = Peer(READY)
    peer.output.open((), "test", ())
    publish(peer.output, bytes(20_000))
    with pytest.raises(PublishError, match="progress_timeout"):
        peer.output.flush()
    peer.close()
    sent = frames.FrameReader().feed(peer.heard.removeprefix(frames.PROTOCOL_HEADER))
    bodies = [len(frame.payload) for frame in sent if frame.kind == frames.BODY]
    assert bodies == [4992] * 4 + [20_000 - 4 * 4992]


def test_a_host_is_reached_by_whichever_of_its_addresses_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(READY)
    address = peer.address
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = []
        with suppress(TimeoutError):  # from then on it swallows all, as a firewall does
            for _ in range(10):
                waiting.append(socket.create_connection(full.getsockname(), timeout=0.1))
        unheard_of = (9999, socket.SOCK_STREAM, 6, "", address)
        swallowing, answering_ = (
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in (full.getsockname(), address)
        )
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [unheard_of, swallowing, answering_])
        peer.output.open((), "test", ())
        peer.close()
        for each in waiting:
            each.close()


def test_no_heartbeat_is_missed_before_the_broker_has_let_us_in() -> None:
    peer = Peer((START,), heartbeat=1, connect_timeout=2.5)
    with pytest.raises(PublishError, match="connect_timeout"):
        peer.output.open((), "test", ())
    peer.close()
