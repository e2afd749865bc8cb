"""What is published: exchanges, messages, what AMQP can hold, and stable message ids."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from n6_stateful.errors import CollectorError

# AMQP's basic properties (https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf), without the reserved one.
NUMBERS = {"delivery_mode": (1, 2), "priority": (0, 255), "timestamp": (0, 2**63 - 1)}
TEXTS = ["content_type", "content_encoding", "correlation_id", "reply_to", "expiration", "message_id", "type"]
TEXTS += ["user_id", "app_id"]


class Exchange(NamedTuple):
    """An exchange of AMQP."""

    name: str
    type: str


class Message(NamedTuple):
    """One message; its properties hold JSON values, and `message_id` is among them."""

    exchange: str
    routing_key: str
    body: bytes
    properties: dict[str, Any]


def checked_properties(given: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the properties, of plain types, without those that are None and without empty headers.

    Raises:
        CollectorError: AMQP or the journal cannot hold one; the text names it.
    """
    return {name: _checked(name, value) for name, value in given.items() if value not in (None, {})}


def short_string(name: str, value: Any) -> str:
    """`value` as a plain str, if AMQP can hold it as a short string, such as a name or the key of a header.

    Raises:
        CollectorError: it cannot.
    """
    data = value.encode(errors="ignore") if isinstance(value, str) else b""
    if data.decode() != value or len(data) > 255 or b"\0" in data:
        raise _error(name, value, "it must be a str of at most 255 bytes in UTF-8, without NUL")
    return data.decode()


def as_body(body: Any) -> bytes:
    """`body` as bytes, copied only where it is not bytes yet.

    Raises:
        CollectorError: it cannot be bytes, or is empty.
    """
    if not (isinstance(body, bytes | bytearray | memoryview) or hasattr(body, "__bytes__")):
        hint = ": encode it first, for instance body.encode('utf-8')" if isinstance(body, str) else ""
        raise CollectorError(f"a message body must be bytes, not {type(body).__name__}{hint}")
    data = body if type(body) is bytes else bytes(body)
    if not data:
        raise CollectorError("a message body is empty; raise NothingNew where there is nothing to publish")
    return data


class MessageIds:
    """Makes the ids of one run's messages: the same data collected again from the same state has the same id.

    An id is 32 hex digits (n6's width) over exchange, routing key, base, body, and how often that came before
    with that base. n6 hashes the time in place of the base, so that a repeated run gives old data new ids.
    BLAKE2 rather than n6's MD5, so that nobody who writes into a feed can make two records share an id.
    """

    def __init__(self) -> None:
        self._scope = ("", "", "")
        self._begun = blake2b()
        self._counts: dict[int, int] = {}  # some 85 bytes a message

    def next(self, exchange: str, routing_key: str, base: str, body: bytes) -> str:
        """The id of `body`; `base` names the state that the run started from, or saved last."""
        scope = exchange, routing_key, base
        if scope != self._scope:
            if base != self._scope[2]:
                self._counts = {}
            self._scope, self._begun = scope, blake2b(repr(scope).encode(), digest_size=16)
        digest = self._begun.copy()
        digest.update(body)
        # Should two bodies share these 64 bits, the later one counts as a repeat: its id is still its own.
        key = int.from_bytes(digest.digest()[:8], "little")
        count = self._counts[key] = self._counts.get(key, -1) + 1
        if count:
            # Hashed apart: put behind the body, it would be what another body ends with.
            digest = blake2b(b"%s %d" % (digest.digest(), count), digest_size=16, person=b"repeat")
        return digest.hexdigest()


def _checked(name: str, value: Any) -> Any:
    if name in NUMBERS:
        least, most = NUMBERS[name]
        if type(value) is not int or not least <= value <= most:
            raise _error(name, value, f"it must be an int from {least} to {most}")
        return value
    if name in TEXTS:
        return short_string(name, value)
    if name == "headers" and isinstance(value, dict):
        return _copied(name, value)
    raise _error(name, value, f"there are only headers (a dict), {', '.join((*NUMBERS, *TEXTS))}")


def _copied(name: str, value: Any) -> Any:
    """A copy of what a header holds, of the plain types of JSON (AMQP has no float that pika can send)."""
    match value:
        case None | bool():
            return value
        case str() if value.encode(errors="ignore").decode() == value:
            return str.__str__(value)
        case int() if -(2**63) <= value < 2**63:
            return int(value)
        case list() | tuple():
            return [_copied(f"{name}[{number}]", item) for number, item in enumerate(value)]
        case dict():
            return {short_string(name, key): _copied(f"{name}[{key!r}]", item) for key, item in value.items()}
    raise _error(name, value, "it must be a str (in UTF-8), int of 64 bits, bool, list, dict or None")


def _error(name: str, value: object, problem: str) -> CollectorError:
    return CollectorError(f"AMQP cannot hold the {name} {value!r:.80}: {problem}; nothing was published")
