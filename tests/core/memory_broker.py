"""A broker in memory, for tests of what happens before and after a delivery."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from n6_stateful import BaseCollector, PublishError, settings
from n6_stateful.journal import Journal
from n6_stateful.message import Message

InForce = Callable[..., AbstractContextManager[None]]


class MemoryBroker:
    """Confirms what it is sent, unless it is `down` or `refuses` a body."""

    def __init__(self) -> None:
        self.delivered: list[Message] = []
        self.attempts = 0
        self.is_down = False
        self.refuses: tuple[bytes, ...] = ()

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.delivered]

    @property
    def ids(self) -> list[str]:
        return [message.properties["message_id"] for message in self.delivered]

    def send(self, journal: Journal) -> int:
        count = 0
        if journal.backlog().messages:
            self.attempts += 1
        for row in journal.waiting():
            if self.is_down:
                raise PublishError("memory: is down")
            if row.body in self.refuses:
                journal.refuse({row.id: "refused"})
                continue
            properties = row.properties | {"message_id": row.message_id}
            self.delivered.append(Message(row.exchange, row.routing_key, row.body, properties))
            journal.delivered([row.id])
            count += 1
        if journal.backlog().messages:
            raise PublishError("memory: refused messages", delivered=count)
        return count

    @contextmanager
    def in_place(self, config: Path, **kwargs: Any) -> Iterator[None]:
        """Collectors that are made and run in this block are configured by `config` and deliver here."""
        original = BaseCollector.send
        BaseCollector.send = lambda _, journal: self.send(journal)  # type: ignore[assignment, method-assign]
        wanted = settings.Settings(**{"config_paths": (str(config),), "output": "amqp://memory/", **kwargs})
        try:
            with settings.use(wanted):
                yield
        finally:
            BaseCollector.send = original  # type: ignore[method-assign]
