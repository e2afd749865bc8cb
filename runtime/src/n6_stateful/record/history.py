"""Where the records of a collector's runs are kept: the protocol, and the history in a file.

A record is written twice, when its run begins and when it has ended, so that a run that was killed shows by
itself. In a file both have the same place: what a run on a full disk has to tell has its room already.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from n6_stateful.record.run import AHEAD, Health, RunRecord
from n6_stateful.state.file import check_safe, make_private_directories, os_errors_as_state_error

if TYPE_CHECKING:
    from n6_stateful.state.database import DatabaseStore

PLACE = 1024  # bytes; a record that is longer when its run has ended gets a line more


class History(Protocol):
    """The records of one collector's runs. What cannot be read or written raises `OSError` or
    `N6StatefulError`."""

    def put(self, record: RunRecord) -> None:
        """Add the record of a run, or replace the one that was put for this run before."""

    def prove_writable(self) -> None:
        """Return if the next run can be recorded, as far as that can be tried without leaving anything."""

    def records(self) -> list[RunRecord]:
        """The records that are kept, in the order in which the runs began, whatever the clock said: the last
        ones, and the last one that brought data, or the first of all."""


class FileHistory:
    """The file `<name>.runs` beside the state file at `path`: a JSON object a line. Once it has `keep` lines
    it becomes `<name>.runs.older`, in the place of the one before; the last record that brought data, or the
    first of all if none has, is then the first line of the next."""

    def __init__(self, path: Path, keep: int) -> None:
        self.path = path.with_name(f"{path.name}.runs")
        self.older = path.with_name(f"{path.name}.runs.older")
        self._keep = keep
        self._file = self._at = -1

    def put(self, record: RunRecord) -> None:
        """Append a line in one write, or overwrite the one that this run has."""
        line = _line(record)
        if self._at >= 0 and len(line) == PLACE:
            os.pwrite(self._file, line, self._at)
        else:
            self._append(line)
        if record.end is not None:
            file, self._at = self._file, -1
            # A run that was turned away might do it at the same time as the one in progress.
            if os.fstat(file).st_size >= self._keep * PLACE and not record.turned_away:
                self._begin_anew(file)
            os.close(file)

    def _begin_anew(self, full: int) -> None:
        """Begin a new file, unless another run has done so: mails may come at the same time."""
        fcntl.flock(full, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(full), self.path.stat()):
                kept = _to_keep(self.records())
                self.path.replace(self.older)
                self._append(_line(kept))
                os.close(self._file)
                self._at = -1

    def _append(self, line: bytes) -> None:
        make_private_directories(self.path.parent)
        check_safe(self.path.parent, self.path.parent.stat())  # else what root leaves there keeps others out
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._file = os.open(self.path, flags, 0o600)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            line = b"\n" + line  # a full disk has cut the one before it
        if os.write(self._file, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._at = os.lseek(self._file, 0, os.SEEK_CUR) - len(line.lstrip(b"\n"))
        fcntl.fcntl(self._file, fcntl.F_SETFL, 0)  # with O_APPEND, pwrite would append

    def prove_writable(self) -> None:
        """Open the file, and find room for a line in its directory."""
        from tempfile import TemporaryFile

        if self.path.exists():
            self.path.open("ab").close()
            with TemporaryFile(dir=self.path.parent) as file:
                file.write(bytes(PLACE))

    def records(self) -> list[RunRecord]:
        """The records of both files."""
        lines: list[bytes] = []
        for path in (self.older, self.path):
            problem = os_errors_as_state_error(f"{path}: cannot be read", but=FileNotFoundError)
            with suppress(FileNotFoundError), problem:
                lines += path.read_bytes().splitlines()
        records = from_json(lines)
        kept = records[-self._keep :]
        return kept if not kept or _to_keep(records) in kept else [_to_keep(records), *kept]


class DatabaseHistory:
    """The history in the database that keeps the state: one for all machines."""

    def __init__(self, store: DatabaseStore, keep: int) -> None:
        self._store = store
        self._keep = keep

    def put(self, record: RunRecord) -> None:
        """Write the run's row."""
        number = round(record.start * 1000) * 1000 + record.pid % 1000
        line = to_json(record).encode(errors="replace")
        self._store.put_run(number, line, self._keep, precious=record.brought_data)

    def prove_writable(self) -> None:
        """Nothing is tried: who looks may be another user of the database, who may do no more."""

    def records(self) -> list[RunRecord]:
        """The records of all machines, by their time: what a clock that was ahead has left comes first."""
        limit = time.time() + AHEAD
        return sorted(from_json(self._store.runs()), key=lambda record: record.start <= limit)


def to_json(record: RunRecord) -> str:
    """The record as a JSON object."""
    return json.dumps(record._asdict(), ensure_ascii=False)


def from_json(lines: Iterable[str | bytes]) -> list[RunRecord]:
    """The records in the lines, of each run the last one, in the place of the first; a line that was cut is
    left out, and what only a newer version knows."""
    found = {}
    for line in lines:
        with suppress(ValueError, TypeError, AttributeError):
            known = {name: each for name, each in json.loads(line).items() if name in RunRecord._fields}
            record = RunRecord(**known)
            run = float(record.start), record.host, record.pid
            if record.end is not None or run not in found:
                found[run] = record
    return list(found.values())


def _to_keep(records: list[RunRecord]) -> RunRecord:
    return Health.of(records).new or next((each for each in records if each.end is not None), records[0])


def _line(record: RunRecord) -> bytes:
    return to_json(record).encode(errors="replace").ljust(PLACE - 1) + b"\n"
