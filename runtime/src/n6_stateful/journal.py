"""The journal: one collector's memory, a small database that is changed in short transactions.

    n6_collector  its head: how many commits there were, which state the state file has
    n6_state      the last ten states
    n6_outbox     the messages that the broker has not confirmed yet
    n6_run        the records of its runs

`put` keeps a message in a buffer. `commit` writes the buffer and the state in one transaction: durable
together, or not at all. Its first statement is the fence: the head must be as this run has seen it last, so a
run that was frozen and overtaken commits nothing.

All SQL is in this module and in `n6_stateful.journal_session`, the same for SQLite, PostgreSQL and MariaDB.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from n6_stateful.errors import CollectorError, PublishError, StateError
from n6_stateful.journal_session import NOTHING, JournalSession
from n6_stateful.journal_session import CorruptError as CorruptError
from n6_stateful.journal_session import Holder as Holder
from n6_stateful.journal_session import schema as schema
from n6_stateful.message import Message
from n6_stateful.sqlite import SQLite, is_of_another_program, utc

if TYPE_CHECKING:
    from n6_stateful.databases import PostgreSQL

JOURNAL_SPEC = """
[journal]
url = :: str                     ; postgresql://... or mysql://...; empty: a file beside the state file
url_file = :: str                ; a file that has this URL, such as a mounted secret
timeout = 30 :: float            ; seconds for connecting to a server, and for each of its answers
directory = ~/.n6cache :: path   ; of the journal, for a collector without `cache_dir`
outbox_max_mib = 4096 :: int     ; of a journal that is a file: beyond that, `publish_output` fails
keep_runs = 1000 :: int          ; how many records of runs are kept
"""
DEFAULTS = {"url": "", "url_file": "", "timeout": 30.0, "outbox_max_mib": 4096, "keep_runs": 1000}

KEPT_STATES = 10
ROWS_AT_ONCE = 500
BYTES_AT_ONCE = 4 << 20
BUFFER_IN_MEMORY = 16 << 20

INSERT_MESSAGE = (
    "INSERT INTO n6_outbox (name, message_id, exchange, routing_key, properties, queued, size, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
COLUMNS = "id, message_id, exchange, routing_key, properties, body, queued, refused, size"
WAITING = "FROM n6_outbox WHERE name = ? AND refused IS {null} AND id > ? "


class DamagedError(StateError):
    """A state is not what was saved: its hash does not match."""


class Generation(NamedTuple):
    """One saved state, without its pickle; `saved` is UTC, `2026-01-02T03:04:05Z`, `size` bytes."""

    number: int
    run: str
    saved: str
    sha256: str
    size: int


class Waiting(NamedTuple):
    """A message in the outbox.

    Attributes:
        properties: those without the message id.
        queued: when, seconds since the epoch.
        refused: why the broker refused it; None if it has not.
        size: of the body, bytes.
    """

    id: int
    message_id: str
    exchange: str
    routing_key: str
    properties: dict[str, Any]
    body: bytes
    queued: float
    refused: str | None
    size: int


class Backlog(NamedTuple):
    """How many messages wait, the bytes of their bodies, how many of them the broker has refused, and when
    the oldest was queued (seconds since the epoch; None if there is none)."""

    messages: int
    bytes: int
    refused: int
    oldest: float | None


def configured_journal(options: Mapping[str, Any], path: Path) -> Journal:
    """A collector's journal: a file, or in the database of `[journal] url` or `url_file`.

    Args:
        path: `<directory>/<name>.sqlite`.
        options: those of `[journal]`.

    Raises:
        ConfigError: the URL is wrong, or the extra `sql` is missing.
    """
    options = {**DEFAULTS, **options}
    if not options["url"] and not options["url_file"]:
        return Journal(SQLite(path, options["timeout"]), path, options)
    from n6_stateful.databases import configured_database

    return Journal(configured_database(options, path.name.removesuffix(".sqlite")), path, options)


def journals_in(directory: Path) -> list[Journal]:
    """The journals that are files in `directory`: damaged ones, too, but no databases of other programs."""
    files = [path for path in sorted(directory.glob("*.sqlite")) if not is_of_another_program(path)]
    return [configured_journal(DEFAULTS, path) for path in files]


class Journal(JournalSession):
    """A collector's journal. `configured_journal` makes it.

    Every method raises `StateError` if the journal cannot be used, `CorruptError` if the file is corrupt; the
    text says how things stand.

    Attributes:
        name: of the collector, `<source>.<ClassName>`.
        where: for people, without secrets.
        is_file: whether it is a file, at `path`; else it is in a database.
        is_locked: whether this object holds the lock.
        id: random, made with the journal; this one and those below are current after `open`.
        newest: number of the last commit.
        filed: number of the state that the state file has.
        url: a digest of the source's URL.
    """

    def __init__(self, engine: SQLite | PostgreSQL, path: Path, options: Mapping[str, Any]) -> None:
        super().__init__(engine, path)
        self._max_mib: int = options["outbox_max_mib"]
        self._keep_runs = max(1, options["keep_runs"])
        self._buffer = _Buffer(path.parent if self.is_file else None)
        self._room: int | None = None  # bytes for bodies; None: to be looked up

    def unlock(self) -> None:
        """Close the connection and give the lock back; the buffer is discarded."""
        super().unlock()
        self.discard()

    # Buffer and commit

    @property
    def buffered(self) -> int:
        """How many messages the next `commit` will write."""
        return self._buffer.count

    def put(self, message: Message) -> None:
        """Keep a message for the next `commit`.

        Raises:
            CollectorError: it is larger than the database takes.
            PublishError: with it, the outbox would be larger than `outbox_max_mib`.
            StateError: the buffer cannot be written; nothing can be committed from now on.
        """
        if self._ended:
            raise self._ended
        self.open()
        properties = dict(message.properties)
        message_id = properties.pop("message_id")
        text, size = json.dumps(properties), len(message.body)
        if size + len(text) > self._engine.largest:
            raise CollectorError(self._too_large("message", size))
        if self._room is None:
            waiting = self.backlog().bytes if self.is_file else 0
            self._room = (self._max_mib << 20) - waiting - self._buffer.bytes
        if size > self._room:
            raise PublishError(
                f"{self.where}: the outbox would exceed {self._max_mib} MiB (outbox_max_mib); nothing since "
                "the last save is published; deliver what waits, raise the limit, or save in between"
            )
        self._room -= size
        row = (self._key, message_id, *message[:2], text, time.time(), size)
        try:
            self._buffer.add(row, message.body)
        except OSError as exc:
            self._ended = StateError(
                f"{self.where}: a message could not be buffered ({exc}); nothing since the last save is "
                "saved or published; make room for temporary files, then run again"
            )
            raise self._ended from exc

    def _too_large(self, what: str, size: int) -> str:
        limit = f"is larger than the database takes ({self._engine.limit})"
        return f"{self.where}: a {what} of {size:,} bytes {limit}; {NOTHING}"

    def discard(self) -> None:
        """Forget what the next `commit` would write."""
        self._buffer.clear()
        self._room = None

    def commit(self, pickle: bytes | None = None, *, run: str = "", at_least: int = 0) -> int:
        """Make the buffer and a state durable, together.

        With the lock, only if nobody else has committed since `lock`. After an error the buffer is kept, and
        a later commit may try again, unless the session or the lock was lost: then it raises the same error.

        Args:
            pickle: the state; None if only the buffer is committed.
            run: the state replaces the newest one if that has the same `run`; empty: it is added.
            at_least: the lowest number that this commit may have; only with the lock.

        Returns:
            The number of this commit.

        Raises:
            StateError: nothing was saved or published, or, if the answer of the database was lost, all of it
                may have been.
        """
        self.open()
        if pickle is not None and len(pickle) > self._engine.largest:
            raise StateError(self._too_large("state", len(pickle)))
        if self._ended:
            raise self._ended
        with self._transaction(NOTHING):
            number = self._advance(at_least)
            for rows in self._buffer.batches():
                self._engine.execute_many(INSERT_MESSAGE, rows)
            if pickle is not None:
                self._put_state(number, run or os.urandom(16).hex(), pickle)
        self.newest = number
        self.discard()
        return number

    def _advance(self, at_least: int) -> int:
        """Count the commit, which is the fence."""
        number = max(self.newest + 1, at_least)
        if self.is_locked:
            fence = "UPDATE n6_collector SET newest = ? WHERE name = ? AND newest = ?"
            counted = self._execute(fence, number, self._key, self.newest)
        else:
            counted = self._execute("UPDATE n6_collector SET newest = newest + 1 WHERE name = ?", self._key)
        if counted.rowcount != 1:
            self._ended = StateError(
                f"{self.where}: another run has taken over; nothing was saved or published by this one; "
                "the next run goes on from what the other one has saved"
            )
            raise self._ended
        select = "SELECT newest FROM n6_collector WHERE name = ?"
        return number if self.is_locked else int(self._execute(select, self._key).fetchone()[0])

    def _put_state(self, number: int, run: str, pickle: bytes) -> None:
        select = "SELECT number, run FROM n6_state WHERE name = ? ORDER BY number DESC"
        states = self._execute(select, self._key).fetchall()
        replaced = states[:1] if states and states[0][1] == run else []
        states = states[len(replaced) :]
        for old, _ in (*replaced, *states[KEPT_STATES - 1 :]):
            self._execute("DELETE FROM n6_state WHERE name = ? AND number = ?", self._key, old)
        state = (self._key, number, run, utc(), hashlib.sha256(pickle).hexdigest(), pickle)
        self._execute("INSERT INTO n6_state VALUES (?, ?, ?, ?, ?, ?)", *state)

    # States

    def generations(self) -> list[Generation]:
        """The states that are kept, the newest first."""
        select = "SELECT number, run, saved, sha256, LENGTH(pickle) FROM n6_state WHERE name = ?"
        select += " ORDER BY number DESC"
        return self._select(select, self._key, make=Generation._make)

    def pickle(self, number: int) -> bytes:
        """The state of that number.

        Raises:
            DamagedError: its hash does not match.
            StateError: there is none.
        """
        select = "SELECT pickle, sha256 FROM n6_state WHERE name = ? AND number = ?"
        for pickle, sha256 in self._select(select, self._key, number):
            if isinstance(pickle, bytes) and hashlib.sha256(pickle).hexdigest() == sha256:
                return pickle
            raise DamagedError(f"{self.where}: state {number} is damaged")
        raise StateError(f"{self.where}: there is no state {number} (any more)")

    def mark_filed(self, number: int) -> None:
        """Remember that the state file has the state of that number."""
        with self._transaction("the state file is newer than the journal knows, which does no harm"):
            self._execute("UPDATE n6_collector SET filed = ? WHERE name = ?", number, self._key)
        self.filed = number

    # Outbox

    def backlog(self) -> Backlog:
        """What waits, in figures."""
        select = "SELECT COUNT(*), COALESCE(SUM(size), 0), COUNT(refused), MIN(queued) FROM n6_outbox"
        for count, size, refused, oldest in self._select(f"{select} WHERE name = ?", self._key):
            return Backlog(count, int(size), refused, oldest)
        return Backlog(0, 0, 0, None)

    def waiting(self) -> Iterator[Waiting]:
        """The messages that wait, oldest first, those that the broker has refused after all others.

        Between two messages no transaction is open. A message that is refused meanwhile comes once more.
        """
        for null in ("NULL", "NOT NULL"):
            last = 0
            while ids := self._next_batch(null, last):
                select = f"SELECT {COLUMNS} {WAITING.format(null=null)} AND id <= ? ORDER BY id"
                yield from self._select(select, self._key, last, ids[-1], make=_waiting)
                last = ids[-1]

    def _next_batch(self, null: str, last: int) -> list[int]:
        """The ids of as many messages behind `last` as are read, or deleted, at once."""
        select = f"SELECT id, size {WAITING.format(null=null)} ORDER BY id LIMIT {ROWS_AT_ONCE}"
        rows = self._select(select, self._key, last, make=lambda row: (row[0], int(row[1])))
        fitting = sum(total <= BYTES_AT_ONCE for total in accumulate(size for _, size in rows))
        return [id for id, _ in rows[: max(1, fitting)]]

    def delivered(self, ids: Sequence[int]) -> None:
        """Delete those messages: the broker has confirmed them, or they are given up."""
        if not ids:
            return
        with self._transaction("what was delivered just now will be sent again, with the same ids"):
            self._delete(ids)
        self._room = None
        if isinstance(self._engine, SQLite) and not self._select("SELECT 1 FROM n6_outbox LIMIT 1"):
            self._engine.shrink()

    def _delete(self, ids: Sequence[int]) -> None:
        for at in range(0, len(ids), ROWS_AT_ONCE):
            some = ids[at : at + ROWS_AT_ONCE]
            marks = ", ".join("?" * len(some))
            delete = f"DELETE FROM n6_outbox WHERE name = ? AND id IN ({marks})"  # noqa: S608 - marks alone
            self._execute(delete, self._key, *some)

    def refuse(self, reasons: Mapping[int, str]) -> None:
        """Keep why the broker has refused those messages, by their ids."""
        rows = [(reason.replace("\0", " "), self._key, id) for id, reason in reasons.items()]
        with self._transaction("that messages were refused is not kept"):
            self._engine.execute_many("UPDATE n6_outbox SET refused = ? WHERE name = ? AND id = ?", rows)

    def prove_deletable(self) -> None:
        """Return if the first messages could be deleted once they are delivered; nothing is changed."""
        ids = self._next_batch("NULL", 0) or self._next_batch("NOT NULL", 0)
        with self._errors("nothing was sent, since every run would send it again"):
            self._execute(self._engine.begin)
            try:
                self._delete(ids)
            finally:
                self._engine.roll_back()

    # Runs

    def put_run(self, started: float, record: Mapping[str, Any]) -> None:
        """Keep the record of the run that began then (seconds since the epoch), in the place of an earlier
        record of it; the oldest ones beyond `keep_runs` go."""
        oldest = "SELECT started FROM n6_run WHERE name = ? ORDER BY started DESC LIMIT 1 OFFSET ?"
        self.open()
        with self._transaction("the record of this run is not kept"):
            self._execute("DELETE FROM n6_run WHERE name = ? AND started = ?", self._key, started)
            self._execute("INSERT INTO n6_run VALUES (?, ?, ?)", self._key, started, json.dumps(dict(record)))
            for (last,) in self._execute(oldest, self._key, self._keep_runs).fetchall():
                self._execute("DELETE FROM n6_run WHERE name = ? AND started <= ?", self._key, last)

    def runs(self, last: int | None = None) -> list[dict[str, Any]]:
        """The records of the runs, or of the last ones, oldest first; `start` is when each began."""
        select = "SELECT started, record FROM n6_run WHERE name = ? ORDER BY started DESC LIMIT ?"
        records = self._select(select, self._key, self._keep_runs if last is None else last, make=_record)
        return records[::-1]


def _waiting(row: Sequence[Any]) -> Waiting:
    return Waiting(*row)._replace(properties=json.loads(row[4]))


def _record(row: Sequence[Any]) -> dict[str, Any]:
    return {**json.loads(row[1]), "start": row[0]}


class _Buffer:
    """Messages until they are committed: in memory, and beyond 16 MiB in a file that has no name."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._file: IO[bytes] = BytesIO()
        self.count = self.bytes = 0

    def clear(self) -> None:
        with suppress(OSError):  # what could not be written is to be forgotten anyway
            self._file.close()
        self._file = BytesIO()
        self.count = self.bytes = 0

    def add(self, row: tuple[Any, ...], body: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)  # `batches` may have ended anywhere
        if isinstance(self._file, BytesIO) and end + len(body) > BUFFER_IN_MEMORY:
            file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115
            file.write(self._file.getbuffer())
            self._file = file
        self._file.write(marshal.dumps(row))
        self._file.write(body)
        self.count += 1
        self.bytes += len(body)

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        self._file.seek(0)
        rows: list[tuple[Any, ...]] = []
        size = 0
        for _ in range(self.count):
            row = marshal.load(self._file)  # noqa: S302 - ours, and nobody else can open it
            rows.append((*row, self._file.read(row[-1])))
            size += row[-1]
            if len(rows) == ROWS_AT_ONCE or size > BYTES_AT_ONCE:
                yield rows
                rows.clear()  # else they would be in memory together with the next ones
                size = 0
        yield rows
