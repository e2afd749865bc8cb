"""What travels: messages, the exchanges they go to, and a note of those that did not arrive."""

from __future__ import annotations

import datetime
import decimal
from typing import Any, NamedTuple

from n6_stateful.errors import CollectorError

# AMQP's basic properties (https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf), without the reserved one.
PROPERTIES: dict[str, type] = {
    "content_type": str,
    "content_encoding": str,
    "headers": dict,
    "delivery_mode": int,
    "priority": int,
    "correlation_id": str,
    "reply_to": str,
    "expiration": str,
    "message_id": str,
    "timestamp": int,
    "type": str,
    "user_id": str,
    "app_id": str,
}
_RANGES = {"delivery_mode": (1, 2), "priority": (0, 255), "timestamp": (0, 2**63 - 1)}
_PLAIN = (str, bytes, bool, datetime.datetime, type(None))


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
    """

    routing_key: str
    message_id: str
    size: int
    reason: str
    refused: bool | None = False


def short_string(what: str, text: str) -> str:
    """`text`, if AMQP can hold it as a short string.

    Raises:
        CollectorError: it is longer than 255 bytes of UTF-8, or is not UTF-8.
    """
    try:
        if len(text.encode()) <= 255:
            return text
        problem = "is longer than 255 bytes"
    except UnicodeEncodeError:
        problem = "is not UTF-8"
    raise CollectorError(f"AMQP cannot hold the {what} {text[:40]!r}...: it {problem}; nothing was sent")


def check(message: Message) -> Message:
    """The message, with properties that nobody else can change.

    Raises:
        CollectorError: AMQP cannot hold it.
    """
    short_string("routing key", message.routing_key)
    return message._replace(properties=checked_properties(message.properties))


def checked_properties(properties: dict[str, Any]) -> dict[str, Any]:
    """A copy of a message's properties that nobody else can change, with the types that AMQP knows.

    Raises:
        CollectorError: there is no such property, or AMQP cannot hold its value.
    """
    copied: dict[str, Any] = {}
    for name, value in properties.items():
        kind = PROPERTIES.get(name)
        if kind is None:
            raise CollectorError(
                f"AMQP knows no property {name!r} of a message; nothing was sent. "
                f"Known are {', '.join(PROPERTIES)}"
            )
        low, high = _RANGES.get(name, (0, 0))
        expected = f"an int, {low} to {high}" if kind is int else f"a {kind.__name__}"
        fits = low <= value <= high if type(value) is kind is int else type(value) is kind
        if name == "expiration":
            expected = "a str of digits, milliseconds"
            fits = fits and value.isascii() and value.isdigit()
        if not fits:
            raise _not_held(f"property {name}", value, expected)
        copied[name] = value
        if kind is str:
            short_string(f"property {name}", value)
        elif kind is dict:
            copied[name] = _copied(value, "headers")
    return copied


def _copied(value: Any, where: str) -> Any:
    if type(value) in _PLAIN:
        return value
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if type(value) is decimal.Decimal and value.is_finite():
        exponent = value.normalize().as_tuple().exponent
        if isinstance(exponent, int) and exponent >= -255 and abs(value.scaleb(-min(exponent, 0))) < 2**31:
            return value
    if type(value) is list:
        return [_copied(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if type(value) is dict:
        for key in value:
            if not isinstance(key, str):
                raise _not_held(f"key in {where}", key, "a str")
            short_string(f"key in {where}", key)
        return {key: _copied(item, f"{where}[{key!r}]") for key, item in value.items()}
    expected = "a str, bytes, bool, int of 64 bits, short Decimal, datetime, list, dict or None"
    raise _not_held(where, value, expected)


def _not_held(what: str, value: object, expected: str) -> CollectorError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return CollectorError(f"AMQP cannot hold the {what} = {shown}: it has to be {expected}; nothing was sent")
