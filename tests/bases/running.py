"""Runs of a collector class in this process, over one journal and a broker in memory; a run can be killed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from n6_stateful import CollectorWithStateMixin
from n6_stateful.collector import BaseCollector
from n6_stateful.message import Message
from tests.core.memory_broker import MemoryBroker


class Killed(BaseException):
    """Ends a run as a kill would: nothing catches it."""


class Running:
    """One collector, run again and again.

    Args:
        collector_class: the collector; its section is `[feed]`.
        directory: where its journal goes.
        options: further lines of the section.

    Attributes:
        arrived: all that the broker has confirmed, in all runs.
        state: what the last run left in `state`.
        left_out: how many rows or items the last run left out.
    """

    def __init__(self, collector_class: type[BaseCollector], directory: Path, options: str = "") -> None:
        self.collector_class = collector_class
        self.broker = MemoryBroker()
        self.arrived = self.broker.delivered
        self.state: Any = None
        self.left_out = 0
        self._config = directory / "60_feed.conf"
        self._config.write_text(f"[feed]\nsource = provider\ncache_dir = {directory}/cache\n{options}\n")

    def make(self, **members: Any) -> Any:
        """The collector, with these members in place of its own."""
        original = self.collector_class
        own = {"__module__": original.__module__, "__qualname__": original.__qualname__}
        made = type(original.__name__, (original,), own | members)
        with self.broker.in_place(self._config):
            return made()

    def run(self, *, kill_at_save: int = 0, **members: Any) -> list[Message]:
        """Run it once; what arrives.

        Args:
            kill_at_save: kill it at the beginning of its save of that number.
            members: what the class has in place of its own.
        """
        saves = 0

        def save_state(collector: Any, state: Any) -> None:
            nonlocal saves
            saves += 1
            if saves == kill_at_save:
                raise Killed
            self.collector_class.save_state(collector, state)  # type: ignore[attr-defined]

        before = len(self.arrived)
        collector = self.make(save_state=save_state, **members)
        try:
            with self.broker.in_place(self._config), suppress(Killed):
                collector.run_handling()
        finally:
            self.left_out = getattr(collector, "left_out", 0)
            if isinstance(collector, CollectorWithStateMixin):
                self.state = collector.state
            collector.journal.discard()
            collector.journal.unlock()
        return self.arrived[before:]

    def edit(self, change: Any) -> None:
        """Save what `change(collector, state)` returns, as commands do."""
        collector = self.make()
        with self.broker.in_place(self._config):
            collector.save_as_new(change(collector, collector.load_state()))
            collector.close_state()

    def records(self) -> list[bytes]:
        """The bodies of all that has arrived, twins once."""
        return list({message.properties["message_id"]: message.body for message in self.arrived}.values())
