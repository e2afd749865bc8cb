"""What travels: messages, the exchanges they go to, and a note of those that did not arrive."""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    class Exchange(NamedTuple):
        name: str
        type: str

    class Message(NamedTuple):
        exchange: str
        routing_key: str
        body: bytes
        properties: dict[str, Any]
        generation: str

    class Undelivered(NamedTuple):
        routing_key: str
        message_id: str
        size: int
        reason: str
else:
    # typing.NamedTuple would cost every run the import of `typing`.
    Exchange = namedtuple("Exchange", "name type")
    Message = namedtuple("Message", "exchange routing_key body properties generation")
    Undelivered = namedtuple("Undelivered", "routing_key message_id size reason")
