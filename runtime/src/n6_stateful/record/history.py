"""Where the records of a collector's runs are: beside its state, in the same kind of store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from n6_stateful.record.run import RunRecord
from n6_stateful.state.file import FileStore
from n6_stateful.state.mixin import CollectorWithStateMixin

NOT_ENDED = "did not end: killed, or the machine went down"


class History(Protocol):
    """Lines of JSON, in the order in which they were written: one when a run begins, one when it ends."""

    def append_line(self, line: str, keep: int) -> None:
        """Add a line; of the older ones keep the last so many, or a few more."""

    def lines(self) -> list[str]:
        """All of them."""


class FileHistory:
    """The lines in a file, which is made when the first is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append_line(self, line: str, keep: int) -> None:
        """Add a line, in one write; now and then write the file anew with the last ones."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A line that a full disk has cut stands by itself.
            os.write(descriptor, f"{line}\n".encode())
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if size > keep * 1000:  # several times what so many lines have
            kept = self.lines()[-keep:]
            temporary = self.path.with_name(f"{self.path.name}.tmp")
            temporary.write_text("".join(f"{each}\n" for each in kept), encoding="utf-8")
            temporary.chmod(0o600)
            temporary.replace(self.path)

    def lines(self) -> list[str]:
        """All of them."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []


def history_of(collector: Any) -> History | None:
    """Where the records of this collector are; None if it has no place to keep any."""
    if isinstance(collector, CollectorWithStateMixin):
        store: Any = collector.state_store
        if isinstance(store, FileStore):
            return FileHistory(store.path.with_name(f"{store.path.name}.runs"))
        return store if hasattr(store, "append_line") else None
    cache_dir = getattr(collector, "config", {}).get("cache_dir")
    if cache_dir is None:
        return None
    return FileHistory(Path(cache_dir).expanduser() / f"{collector.get_output_owner()}.runs")


def write(history: History, record: RunRecord, keep_runs: int) -> None:
    """Add what is known of a run by now."""
    history.append_line(json.dumps(record._asdict(), ensure_ascii=False), 2 * keep_runs)


def records(history: History | None) -> list[RunRecord]:
    """The records of the runs, oldest first; those that did not end have no `exit_code`, and an error."""
    found: dict[str, RunRecord] = {}
    for record in _parsed(history.lines() if history else ()):
        if not record.ended:
            record = record._replace(error=NOT_ENDED)
        found[record.run] = record
    return list(found.values())


def _parsed(lines: Iterable[str]) -> Iterable[RunRecord]:
    for line in lines:
        with suppress(ValueError, TypeError, AttributeError):  # a line that was cut, or of a newer version
            fields = json.loads(line)
            yield RunRecord(**{name: fields[name] for name in RunRecord._fields if name in fields})
