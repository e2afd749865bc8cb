"""Runs of a collector class in this process, over one state, into memory; a run can be killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from n6_stateful import CollectorWithStateMixin, settings
from n6_stateful.collector import BaseCollector
from n6_stateful.message import Message
from n6_stateful.testing import MemoryOutput


class Killed(BaseException):
    """Ends a run as a kill would: nothing catches it."""


class Running:
    """One collector, run again and again.

    Args:
        collector_class: the collector; its section is `[feed]`.
        directory: where the state goes.
        options: further lines of the section.
    """

    def __init__(self, collector_class: type[BaseCollector], directory: Path, options: str = "") -> None:
        self.collector_class = collector_class
        self.arrived: list[Message] = []
        self._config = directory / "60_feed.conf"
        self._config.write_text(f"[feed]\nsource = provider\ncache_dir = {directory}/cache\n{options}\n")

    def run(self, *, kill_at_save: int = 0, **members: Any) -> list[Message]:
        """Run it once; what arrives.

        Args:
            kill_at_save: kill it at the beginning of its save of that number, once all has arrived.
            members: what the class has in place of its own.
        """
        saves = 0

        def save_state(collector: Any, state: Any) -> None:
            nonlocal saves
            saves += 1
            collector.flush_output()
            if saves == kill_at_save:
                raise Killed
            self.collector_class.save_state(collector, state)  # type: ignore[attr-defined]

        own = {"save_state": save_state, "__module__": self.collector_class.__module__, **members}
        made = type(self.collector_class.__name__, (self.collector_class,), own)
        output = MemoryOutput()
        with settings.use(settings.Settings(config_paths=(str(self._config),), output=output)):
            collector: Any = made()
            try:
                collector.run_handling()
            except Killed:
                pass
            finally:
                self.arrived += output.delivered
                if isinstance(collector, CollectorWithStateMixin):
                    collector.close_state()
                    self.state = collector.state
        return output.delivered

    def records(self) -> list[bytes]:
        """The bodies of all that has arrived, twins once."""
        return list({each.properties["message_id"]: each.body for each in self.arrived}.values())
