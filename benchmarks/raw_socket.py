"""The yardstick: AMQP 0-9-1 over a blocking socket, with frames encoded beforehand and confirms.

No client can be faster: it sends bytes that are ready, and counts what the broker confirms.
"""

from __future__ import annotations

import socket
import struct
from urllib.parse import unquote, urlsplit

FRAME_MAX = 131072


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def _method(channel: int, cls: int, number: int, arguments: bytes = b"") -> bytes:
    return _frame(1, channel, struct.pack(">HH", cls, number) + arguments)


def _short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


class RawPublisher:
    """Publishes one pre-encoded message again and again.

    Args:
        url: `amqp://user:password@host:port/`.
        exchange: where to; it must be there.
        window: how many messages may be unconfirmed.
    """

    def __init__(self, url: str, exchange: str, window: int) -> None:
        parts = urlsplit(url)
        self._exchange = exchange
        self._window = window
        self._buffer = b""
        self._up_to = 0  # every tag up to this one is confirmed
        self._beyond: set[int] = set()  # and these
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5672))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(b"AMQP\0\0\x09\x01")
        self._expect(10, 10)
        user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        login = f"\0{user}\0{password}".encode()
        start = struct.pack(">I", 0) + _short("PLAIN") + struct.pack(">I", len(login)) + login
        self._socket.sendall(_method(0, 10, 11, start + _short("en_US")))
        self._expect(10, 30)
        self._socket.sendall(_method(0, 10, 31, struct.pack(">HIH", 2047, FRAME_MAX, 0)))
        self._socket.sendall(_method(0, 10, 40, _short(unquote(parts.path[1:]) or "/") + b"\0\0"))
        self._expect(10, 41)
        self._socket.sendall(_method(1, 20, 10, b"\0"))
        self._expect(20, 11)
        self._socket.sendall(_method(1, 85, 10, b"\0"))
        self._expect(85, 11)

    def publish(self, body: bytes, count: int) -> None:
        """Publish `body` `count` times, and return when all are confirmed."""
        room = FRAME_MAX - 8
        arguments = b"\0\0" + _short(self._exchange) + _short("a.b") + b"\x01"
        # delivery_mode, message_id and type, as a collector's messages have them
        header = struct.pack(">HHQH", 60, 0, len(body), 0x1000 | 0x0080 | 0x0020) + b"\x02"
        header += _short("0" * 32) + _short("stream")
        message = _method(1, 60, 40, arguments) + _frame(2, 1, header)
        message += b"".join(_frame(3, 1, body[at : at + room]) for at in range(0, len(body), room))
        at_once = max(1, (1 << 20) // len(message))
        sent = 0
        while self._confirmed() < count:
            burst = min(at_once, self._window - (sent - self._confirmed()), count - sent)
            if burst:
                self._socket.sendall(message * burst)
                sent += burst
            else:
                self._read_confirmation()

    def close(self) -> None:
        """End the connection in order."""
        self._socket.sendall(_method(0, 10, 50, struct.pack(">H", 0) + _short("") + b"\0\0\0\0"))
        self._expect(10, 51)
        self._socket.close()

    def _expect(self, cls: int, number: int) -> None:
        if self._method_frame()[:2] != (cls, number):
            raise SystemExit("the broker said something unexpected to the raw socket")

    def _method_frame(self) -> tuple[int, int, bytes]:
        while True:
            if len(self._buffer) >= 7:
                kind, _, size = struct.unpack_from(">BHI", self._buffer)
                if len(self._buffer) >= size + 8:
                    payload, self._buffer = self._buffer[7 : 7 + size], self._buffer[size + 8 :]
                    if kind == 1:
                        cls, number = struct.unpack_from(">HH", payload)
                        return cls, number, payload[4:]
                    continue
            data = self._socket.recv(1 << 16)
            if not data:
                raise SystemExit("the broker closed the raw socket")
            self._buffer += data

    def _read_confirmation(self) -> None:
        cls, number, arguments = self._method_frame()
        if (cls, number) != (60, 80):
            raise SystemExit(f"the raw socket expected a confirmation, and got {cls}, {number}")
        tag, multiple = struct.unpack_from(">QB", arguments)
        if multiple:
            self._up_to = max(self._up_to, tag)
            self._beyond = {other for other in self._beyond if other > tag}
        else:
            self._beyond.add(tag)
        while self._up_to + 1 in self._beyond:
            self._up_to += 1
            self._beyond.remove(self._up_to)

    def _confirmed(self) -> int:
        return self._up_to + len(self._beyond)
