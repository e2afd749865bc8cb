"""What travels: messages, the exchanges they go to, and a note of those that did not arrive."""

from __future__ import annotations

from typing import Any, NamedTuple


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
            on it); otherwise it may or may not have arrived.
    """

    routing_key: str
    message_id: str
    size: int
    reason: str
    refused: bool = False
