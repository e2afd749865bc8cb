"""What travels: messages, the exchanges they go to, and a note of those that did not arrive."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Mapping
from typing import Any, NamedTuple

from n6_stateful.errors import CollectorError

# AMQP's basic properties (https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf), without the reserved one.
NUMBERS = {"delivery_mode": (1, 2), "priority": (0, 255), "timestamp": (0, 2**63 - 1)}
TEXTS = ["content_type", "content_encoding", "correlation_id", "reply_to", "expiration", "message_id", "type"]
TEXTS += ["user_id", "app_id"]
# All properties travel in one frame, of 131,064 bytes by RabbitMQ's default; the others need 2,328 at most.
LARGEST_HEADERS = 128_000


class Exchange(NamedTuple):
    """An exchange of AMQP."""

    name: str
    type: str


class Message(NamedTuple):
    """One message, and the state's generation that was current when it was published."""

    exchange: str
    routing_key: str
    body: bytes
    properties: dict[str, Any]
    generation: str


class Undelivered(NamedTuple):
    """A message that is not known to have arrived.

    Attributes:
        refused: whether the broker said so of this very message (a return, a nack, a channel that it closed
            on it); None if it refused one of those that bear None; otherwise it may or may not have arrived.
        for_all: whether it would say so of every message to that exchange with that routing key.
    """

    routing_key: str
    message_id: str
    size: int
    reason: str
    refused: bool | None = False
    for_all: bool = False


def checked_properties(given: Mapping[str, Any]) -> dict[str, Any]:
    """Properties that nobody else can change, without those that are None or empty headers.

    Raises:
        CollectorError: AMQP cannot hold one; the text names it.
    """
    try:
        return {name: _checked(name, value) for name, value in given.items() if value not in (None, {})}
    except RecursionError:
        raise _error("headers", "...", "they are nested too deeply") from None


def short_string(name: str, value: Any) -> str:
    """`value` as a plain str, if AMQP can hold it as a short string, such as a name or the key of a header.

    Raises:
        CollectorError: it cannot.
    """
    if not isinstance(value, str) or len(_encoded(name, value)) > 255 or "\0" in value:
        raise _error(name, value, "it must be a str of at most 255 bytes in UTF-8, without NUL")
    return str.__str__(value)


def _checked(name: str, value: Any) -> Any:
    if name in NUMBERS:
        least, most = NUMBERS[name]
        if type(value) is not int or not least <= value <= most:
            raise _error(name, value, f"it must be an int from {least} to {most}")
    elif name in TEXTS:
        value = short_string(name, value)
        if name == "expiration" and not (value.isascii() and value.isdigit() and int(value) < 2**32):
            raise _error(name, value, "it must be milliseconds in digits, for instance '60000'")
    elif name != "headers":
        raise _error(name, value, f"there are only headers, {', '.join((*NUMBERS, *TEXTS))}")
    elif type(value) is not dict:
        raise _error(name, value, "it must be a dict")
    elif _size(value := _copied(name, value)) > LARGEST_HEADERS:
        raise _error(name, value, f"together they take more than {LARGEST_HEADERS:,} bytes")
    return value


def _copied(name: str, value: Any) -> Any:
    """A copy of what a header holds, of the plain types that a spool can keep."""
    match value:
        case None | bool():
            return value
        case bytes():
            return bytes(value)
        case str():
            return _encoded(name, value).decode()
        case int() if -(2**63) <= value < 2**63:
            return int(value)
        case decimal.Decimal() if value.is_finite() and -9 < value.adjusted() < 9:
            if value == round(value, 8 - value.adjusted()):
                return decimal.Decimal(value)
        case datetime.datetime() if type(value) is datetime.datetime and value.year < 9999:
            moment = value.replace(tzinfo=value.tzinfo or datetime.UTC)
            if moment.timestamp() >= 0:
                return value if value.tzinfo is None else moment.astimezone(datetime.UTC)
        case list():
            return [_copied(f"{name}[{number}]", each) for number, each in enumerate(value)]
        case dict():
            return {short_string(name, key): _copied(f"{name}[{key!r}]", each) for key, each in value.items()}
    expected = (
        "a str, bytes, bool, int of 64 bits, Decimal of 9 digits, datetime since 1970, list, dict or None"
    )
    raise _error(name, value, f"it must be {expected}")


def _size(value: Any) -> int:
    """At least as many bytes as AMQP needs for what a header holds."""
    match value:
        case str() | bytes():
            return 5 + len(value if isinstance(value, bytes) else value.encode())
        case list():
            return 5 + sum(map(_size, value))
        case dict():
            return 5 + sum(len(key.encode()) + 1 + _size(each) for key, each in value.items())
    return 9


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _error(name, text, "it cannot be encoded in UTF-8") from None


def _error(name: str, value: object, problem: str) -> CollectorError:
    return CollectorError(f"AMQP cannot hold the {name} {value!r:.80}: {problem}; nothing was sent")
