"""A connection to a broker: TCP or TLS, the login, heartbeats and alarms; frames go out and come in.

Nothing here waits longer than it is told to, and nothing here knows what is published.
"""

from __future__ import annotations

import fcntl
import logging
import select
import socket
import sys
import termios
import time
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from n6_stateful.output import amqp_frames as frames
from n6_stateful.output.amqp_frames import Fields, FrameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from ssl import SSLContext

    from n6_stateful.output.amqp_frames import Buffer, Frame
    from n6_stateful.output.broker import Login

LOGGER = logging.getLogger(__name__)

RECEIVE_BYTES = 64 << 10
BUFFERS_AT_ONCE = 512  # Linux takes 1024 in one system call
TLS_BYTES_AT_ONCE = 64 << 10
INTERRUPTED = "it was interrupted amid its work"
TICK_SECONDS = 0.25  # a turn waits no longer, to look after the heartbeats

_CAPABILITIES = (
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "exchange_exchange_bindings",
    "publisher_confirms",
)
_HEARTBEAT = frames.frame(frames.HEARTBEAT, 0, b"")


class Connection:
    """An open socket, and what is said on it.

    Args:
        login: which broker, and as whom.
        name: how the broker shows this connection to people.
        heartbeat: seconds between two heartbeats; 0 for none.
        timeout: seconds that reaching the broker may take, TLS included.
        obey: called with each frame of a channel that comes; may raise `FrameError`.

    Attributes:
        is_open: the broker has let us in.
        problem: why nothing can be published any more, the connection's end for instance; None if it can.
        alarm: why the broker takes nothing for now; None if it does.
        in_doubt: what was sent or said may not be what was noted, since it was interrupted, or was no AMQP.
        unsent: how many bytes wait to be given to the system.
        received: how many bytes have come on channels.
        longest_frame: in bytes.

    Raises:
        OSError: nobody can be reached there, or TLS does not trust them.
        ConfigError: a TLS file cannot be loaded.
    """

    def __init__(
        self, login: Login, name: str, heartbeat: int, timeout: float, obey: Callable[[Frame], None]
    ) -> None:
        self.is_open = False
        self.problem: str | None = None
        self.alarm: str | None = None
        self.in_doubt = False
        self.unsent = 0
        self.received = 0
        self.longest_frame = frames.LONGEST_FRAME
        self._login = login
        self._name = name
        self._heartbeat = heartbeat
        self._obey = obey
        self._waiting: deque[Buffer] = deque()
        self._reader = frames.FrameReader()
        self._poll = select.poll()
        self._would_block: tuple[type[OSError], ...] = (BlockingIOError,)
        self._is_tls = False
        self._broken: OSError | None = None  # nothing can be sent any more
        self._is_closed = False
        context = login.tls_context()
        self._socket = _reach(login.host, login.port, time.monotonic() + timeout)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                self._start_tls(context)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise
        self._last_sent = self._last_heard = time.monotonic()
        self.send([frames.PROTOCOL_HEADER])

    @property
    def under_way(self) -> int:
        """How many bytes the other side's system does not have yet, as far as ours knows."""
        if self._is_closed:
            return 0
        queued = bytes(4)
        with suppress(OSError):  # not every system tells
            queued = fcntl.ioctl(self._socket, termios.TIOCOUTQ, queued)
        return self.unsent + int.from_bytes(queued, sys.byteorder)

    def send(self, buffers: Iterable[Buffer]) -> None:
        """Take whole frames, to be sent as the connection is turned."""
        for each in buffers:
            self._waiting.append(each)
            self.unsent += len(each)

    def turn(self, seconds: float = 0) -> bool:
        """Send what can be sent, and take what has come; whether anything has.

        An error ends the connection (see `problem`), and is not raised. Where the handler of a signal raises
        amid a turn, the next one ends the connection.

        Args:
            seconds: how long to wait where there is nothing to be done, at most; some turns wait shorter.
        """
        if self._is_closed:
            return False
        if self.in_doubt:
            self.end(INTERRUPTED)
            return False
        self.in_doubt = True  # to the end of the turn, and not in a `finally`
        data = None
        try:
            if not self._flush() and seconds:
                self._wait(seconds)
            data = self._receive()
            if data:
                self._last_heard = time.monotonic()
                for frame in self._reader.feed(data):
                    if frame.channel:
                        self.received += len(frame.payload)
                        self._obey(frame)
                    elif frame.kind == frames.METHOD:
                        self._obey_connection(Fields(frame.payload))
            elif data is not None:
                raise ConnectionError("the broker closed the connection without a word")
            elif self._broken is not None:
                raise self._broken
        except OSError as exc:
            self.end(told(self._broken or exc))
        except FrameError as exc:
            self.end(f"what answers there does not speak AMQP 0-9-1: {exc}")
            return True
        if self._heartbeat and self.is_open and not self._is_closed:
            self._beat()
        self.in_doubt = False
        return bool(data)

    def close(self, seconds: float) -> bool:
        """End the connection in order; whether the broker has done its part within so many seconds."""
        deadline = time.monotonic() + seconds
        nothing = frames.short_string("")
        self.send([frames.method(0, frames.CONNECTION_CLOSE, b"\0\0", nothing, b"\0\0\0\0")])
        while not self._is_closed and time.monotonic() < deadline:
            self.turn(min(seconds, TICK_SECONDS))
        agreed = self._is_closed
        self.end("it was closed")
        return agreed

    def give_up(self, reason: str, seconds: float) -> None:
        """End the connection without what waits to be sent; in order if the broker agrees in time."""
        # Amid a message a further frame would be taken for a part of it.
        if self.is_open and not (self._is_closed or self._waiting or self.in_doubt):
            self.close(seconds)
        self.end(reason)

    def end(self, reason: str) -> None:
        """End the connection at once."""
        self.problem = self.problem or reason
        self._is_closed = True
        self._socket.close()

    # Bytes

    def _start_tls(self, context: SSLContext) -> None:
        from ssl import SSLWantReadError, SSLWantWriteError

        self._socket = context.wrap_socket(self._socket, server_hostname=self._login.host)
        self._would_block = (SSLWantReadError, SSLWantWriteError)
        self._is_tls = True

    def _flush(self) -> bool:
        """Send what can be sent; whether that was anything."""
        before = self.unsent
        try:
            while self._waiting and self._broken is None:
                sent = self._write()
                self.unsent -= sent
                while sent:
                    first = self._waiting[0]
                    if sent < len(first):
                        self._waiting[0] = memoryview(first)[sent:]
                        break
                    sent -= len(first)
                    self._waiting.popleft()
                self._last_sent = time.monotonic()
        except self._would_block:
            pass
        except OSError as exc:
            self._broken = exc  # but what the broker has said before is still to be read
        return self.unsent < before

    def _write(self) -> int:
        """Send some of what waits; how many bytes."""
        if not self._is_tls:
            return self._socket.sendmsg(islice(self._waiting, BUFFERS_AT_ONCE))
        taken: list[Buffer] = []
        size = 0
        for each in self._waiting:
            taken.append(each)
            size += len(each)
            if size >= TLS_BYTES_AT_ONCE:
                break
        return self._socket.send(b"".join(taken))

    def _receive(self) -> bytes | None:
        """What has come: nothing (None), or the other side's end (no bytes)."""
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except self._would_block:
            return None

    def _wait(self, seconds: float) -> None:
        """Until something can be received, or sent if there is something to send."""
        if self._is_tls and self._socket.pending():  # type: ignore[attr-defined] # it is an SSLSocket
            return
        self._poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._waiting else 0))
        self._poll.poll(min(seconds, TICK_SECONDS) * 1000)

    def _beat(self) -> None:
        """Keep up the heartbeat, ours and the broker's."""
        now = time.monotonic()
        if now - self._last_heard > 2 * self._heartbeat:
            self.end(f"nothing was heard from the broker for two heartbeats ({2 * self._heartbeat} s)")
        elif now - self._last_sent > self._heartbeat / 2 and not self._waiting:
            self.send([_HEARTBEAT])

    # What is said on channel 0

    def _obey_connection(self, fields: Fields) -> None:
        match fields.method():
            case frames.CONNECTION_START:
                self._log_in(fields)
            case frames.CONNECTION_TUNE:
                self._tune(fields)
            case frames.CONNECTION_OPEN_OK:
                self.is_open = True
            case frames.CONNECTION_BLOCKED:
                self.alarm = fields.short_string()
                LOGGER.warning("%s takes nothing for now: an alarm: %s", self._login.where, self.alarm)
            case frames.CONNECTION_UNBLOCKED:
                self.alarm = None
                LOGGER.info("%s: the alarm is over", self._login.where)
            case frames.CONNECTION_CLOSE:
                if not self._waiting:
                    self.send([frames.method(0, frames.CONNECTION_CLOSE_OK)])
                    self._flush()
                self.end(close_reason(fields))
            case frames.CONNECTION_CLOSE_OK:
                self.end("it was closed")

    def _log_in(self, fields: Fields) -> None:
        fields.octets(2)  # the protocol's version
        fields.long_string()  # what the broker tells of itself
        offered = fields.long_string().decode(errors="replace").split()
        mechanism, response = self._login.response()
        if mechanism not in offered:
            self.end(f"it lets nobody log in with {mechanism}, but with {' or '.join(offered) or 'nothing'}")
            return
        about = {
            "product": "n6-stateful",
            "platform": f"Python {sys.version.split()[0]}",
            "connection_name": self._name,
            "capabilities": dict.fromkeys(_CAPABILITIES, True),
        }
        arguments = (
            frames.table(about),
            frames.short_string(mechanism),
            frames.long_string(response),
            frames.short_string("en_US"),
        )
        self.send([frames.method(0, frames.CONNECTION_START_OK, *arguments)])

    def _tune(self, fields: Fields) -> None:
        channels = fields.octets(2)
        self.longest_frame = min(fields.number(4) or frames.LONGEST_FRAME, frames.LONGEST_FRAME)
        if self.longest_frame < frames.SHORTEST_FRAME:
            raise FrameError(f"frames of {self.longest_frame} bytes")
        LOGGER.debug("frames of %d bytes, a heartbeat every %d s", self.longest_frame, self._heartbeat)
        numbers = self.longest_frame.to_bytes(4, "big"), self._heartbeat.to_bytes(2, "big")
        self.send(
            [
                frames.method(0, frames.CONNECTION_TUNE_OK, channels, *numbers),
                frames.method(0, frames.CONNECTION_OPEN, frames.short_string(self._login.vhost), b"\0\0"),
            ]
        )


def _reach(host: str, port: int, deadline: float) -> socket.socket:
    """A connected socket whose timeout is what is left until `deadline` (of `time.monotonic`)."""
    problem: OSError = TimeoutError("timed out")
    try:
        # A name in ASCII goes as bytes, or the codec of other names would be imported.
        name = host.encode() if host.isascii() else host
        addresses = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError(f"{host!r} is no name of a host") from None
    for count, (family, kind, protocol, _, address) in enumerate(addresses):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            reached = socket.socket(family, kind, protocol)
        except OSError as exc:  # an address of version 6 on a machine without
            problem = exc
            continue
        try:
            reached.settimeout(left / (len(addresses) - count))  # one that swallows all is not the last hope
            reached.connect(address)
            reached.settimeout(max(deadline - time.monotonic(), 0.001))  # for TLS; 0 would not wait at all
        except OSError as exc:
            reached.close()
            problem = exc
        else:
            return reached
    raise problem


def close_reason(fields: Fields) -> str:
    """What the broker says where it closes a channel or a connection."""
    return f"the broker said {fields.number(2)} {fields.short_string()}"


def told(problem: OSError) -> str:
    """An error of a socket, for a person."""
    return problem.strerror or str(problem) or type(problem).__name__
