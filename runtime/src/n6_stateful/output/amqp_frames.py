"""AMQP 0-9-1 as bytes: the frames that a publisher sends, and the fields of those that it gets.

After the specification (https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf), with RabbitMQ's reading of
the types in a table (https://www.rabbitmq.com/amqp-0-9-1-errata). No sockets here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct, pack
from typing import Any, NamedTuple

Buffer = bytes | memoryview


class Frame(NamedTuple):
    """One frame."""

    kind: int
    channel: int
    payload: bytes


PROTOCOL_HEADER = b"AMQP\0\0\x09\x01"
LONGEST_FRAME = 128 << 10  # RabbitMQ's own default; what it takes may be less
SHORTEST_FRAME = 4 << 10  # every broker takes so much
SMALL_BODY = 2 << 10  # copying it costs less than another buffer

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8  # kinds of frames

# Methods, by class and number
CONNECTION_START, CONNECTION_START_OK = (10, 10), (10, 11)
CONNECTION_TUNE, CONNECTION_TUNE_OK = (10, 30), (10, 31)
CONNECTION_OPEN, CONNECTION_OPEN_OK = (10, 40), (10, 41)
CONNECTION_CLOSE, CONNECTION_CLOSE_OK = (10, 50), (10, 51)
CONNECTION_BLOCKED, CONNECTION_UNBLOCKED = (10, 60), (10, 61)
CHANNEL_OPEN, CHANNEL_CLOSE = (20, 10), (20, 40)
EXCHANGE_DECLARE = (40, 10)
CONFIRM_SELECT, CONFIRM_SELECT_OK = (85, 10), (85, 11)
BASIC_PUBLISH, BASIC_RETURN, BASIC_ACK, BASIC_NACK = (60, 40), (60, 50), (60, 80), (60, 120)

_START = Struct(">BHI")
_END = b"\xce"
_AROUND = _START.size + len(_END)


class FrameError(Exception):
    """What has come is no AMQP 0-9-1."""


# What is sent


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """A whole frame."""
    return _START.pack(kind, channel, len(payload)) + payload + _END


def method(channel: int, name: tuple[int, int], *arguments: bytes) -> bytes:
    """A method's frame."""
    return frame(METHOD, channel, pack(">HH", *name) + b"".join(arguments))


@lru_cache(64)
def publish(channel: int, exchange: str, routing_key: str) -> bytes:
    """The frame of a `basic.publish` that is `mandatory`.

    Raises:
        ValueError: a name is too long.
    """
    return method(channel, BASIC_PUBLISH, b"\0\0", short_string(exchange), short_string(routing_key), b"\1")


def message(method: bytes, properties: Mapping[str, Any], body: bytes, longest: int) -> list[Buffer]:
    """A whole message, in buffers that follow each other; a large body is not copied.

    Args:
        method: the frame of its `basic.publish`.
        properties: by their names in the specification, with underscores; None is as good as nothing.
        body: at least no `str`.
        longest: how many bytes a frame may have.

    Raises:
        ValueError: AMQP has no such property, or cannot hold its value.
    """
    channel = _START.unpack_from(method)[1]
    size = len(body)
    header = frame(HEADER, channel, _HEADER.pack(60, 0, size) + _properties(properties))
    if len(header) > longest:
        raise ValueError(f"the properties take {len(header):,} bytes, and a frame here has {longest:,}")
    if 0 < size <= SMALL_BODY:
        return [b"".join((method, header, _START.pack(BODY, channel, size), body, _END))]
    buffers: list[Buffer] = [method, header]
    room = longest - _AROUND
    view = memoryview(body)
    for at in range(0, size, room):
        part = view[at : at + room]
        buffers += _START.pack(BODY, channel, len(part)), part, _END
    return buffers


def short_string(text: str) -> bytes:
    """A text of at most 255 bytes."""
    encoded = text.encode()
    if len(encoded) > 255:
        raise ValueError(f"{text[:40]!r}... has {len(encoded)} bytes; AMQP allows 255")
    return _octet(len(encoded)) + encoded


def long_string(octets: bytes) -> bytes:
    """Octets with their length in front."""
    return pack(">I", len(octets)) + octets


def table(values: Mapping[str, Any]) -> bytes:
    """A field table."""
    return long_string(b"".join(short_string(name) + _field(value) for name, value in values.items()))


def _field(value: Any) -> bytes:
    match value:
        case None:
            return b"V"
        case bool():
            return b"t" + pack("?", value)
        case int():
            return b"I" + pack(">i", value) if -(1 << 31) <= value < 1 << 31 else b"l" + pack(">q", value)
        case float():
            return b"d" + pack(">d", value)
        case str():
            return b"S" + long_string(value.encode())
        case bytes():
            return b"x" + long_string(value)
        case dict():
            return b"F" + table(value)
        case list() | tuple():
            return b"A" + long_string(b"".join(map(_field, value)))
    raise TypeError(f"a header cannot hold a {type(value).__name__}")


def _properties(properties: Mapping[str, Any]) -> bytes:
    flags = 0
    encoded = b""
    for name in _on_the_wire(tuple(properties)):
        value = properties[name]
        if value is not None:
            flag, encode = _PROPERTIES[name]
            flags |= flag
            try:
                encoded += encode(value)
            except (AttributeError, OverflowError, TypeError, ValueError, struct.error) as exc:
                raise ValueError(f"{name} {value!r:.80}: {exc}") from exc
    return _flags(flags) + encoded


@lru_cache(64)
def _on_the_wire(names: tuple[str, ...]) -> tuple[str, ...]:
    """These properties' names, in their order on the wire."""
    if unknown := set(names) - _PROPERTIES.keys():
        raise ValueError(f"AMQP knows no property {', '.join(sorted(map(repr, unknown)))}")
    return tuple(name for name in _PROPERTIES if name in names)


_HEADER = Struct(">HHQ")
_octet = Struct(">B").pack
_flags = Struct(">H").pack
_seconds = Struct(">Q").pack

# In the order in which they are on the wire
_PROPERTIES: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "content_type": (0x8000, short_string),
    "content_encoding": (0x4000, short_string),
    "headers": (0x2000, table),
    "delivery_mode": (0x1000, _octet),
    "priority": (0x0800, _octet),
    "correlation_id": (0x0400, short_string),
    "reply_to": (0x0200, short_string),
    "expiration": (0x0100, short_string),
    "message_id": (0x0080, short_string),
    "timestamp": (0x0040, _seconds),
    "type": (0x0020, short_string),
    "user_id": (0x0010, short_string),
    "app_id": (0x0008, short_string),
    "cluster_id": (0x0004, short_string),
}


# What is received


class FrameReader:
    """Cuts what comes from a socket into frames."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes.

        Raises:
            FrameError: it is none.
        """
        buffer = self._buffer + data
        frames = []
        at = 0
        while len(buffer) - at >= _START.size:
            kind, channel, size = _START.unpack_from(buffer, at)
            if kind not in (METHOD, HEADER, BODY, HEARTBEAT) or size > LONGEST_FRAME:
                raise FrameError(f"{buffer[at : at + 40]!r}")
            start = at + _START.size
            end = start + size
            if end >= len(buffer):
                break
            if buffer[end] != _END[0]:
                raise FrameError(f"a frame of {size} bytes has no end")
            frames.append(Frame(kind, channel, buffer[start:end]))
            at = end + 1
        self._buffer = buffer[at:]
        return frames


class Fields:
    """Reads the fields of a frame's payload, one after the other; each call raises `FrameError` when the
    payload ends too early."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def octets(self, count: int) -> bytes:
        """So many octets."""
        found = self._payload[self._at : self._at + count]
        if len(found) < count:
            raise FrameError(f"a frame of {len(self._payload)} bytes ends too early")
        self._at += count
        return found

    def number(self, octets: int) -> int:
        """An unsigned number of so many octets."""
        return int.from_bytes(self.octets(octets), "big")

    def method(self) -> tuple[int, int]:
        """A method's class and number."""
        return self.number(2), self.number(2)

    def short_string(self) -> str:
        """A text of at most 255 bytes."""
        return self.octets(self.number(1)).decode(errors="replace")

    def long_string(self) -> bytes:
        """Octets with their length in front; a table, too, since nothing here looks into one."""
        return self.octets(self.number(4))

    def size_and_message_id(self) -> tuple[int, str]:
        """What identifies a message, of its content header: the body's size and the property."""
        self.octets(4)  # class and weight
        size = self.number(8)
        flags = self.number(2)
        for name, (flag, encode) in _PROPERTIES.items():
            if name == "message_id":
                break
            if not flags & flag:
                continue
            if encode is short_string:
                self.short_string()
            elif encode is table:
                self.long_string()
            else:
                self.octets(1)
        return size, self.short_string() if flags & flag else ""
