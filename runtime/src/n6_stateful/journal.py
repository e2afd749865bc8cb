"""The journal: a collector's memory, a small database that is changed in short transactions.

    n6_collector  its head: the number of commits, and which state is in the state file
    n6_state      the last ten states
    n6_outbox     the messages that the broker has not confirmed yet
    n6_run        the records of runs

`put` adds a message to a buffer. `commit` writes the buffer and the state in one transaction, so both become
durable or neither. Its first statement is the fence: the head must be unchanged since this run last saw it,
so a run that was frozen and overtaken commits nothing.

All SQL is here, the same for SQLite, PostgreSQL and MariaDB. Sessions, and the differences between engines,
are in `n6_stateful.sqlite` and `n6_stateful.databases`.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, NamedTuple

from n6_stateful.errors import CollectorError, ConfigError, PublishError, StateError, StateLockedError
from n6_stateful.message import Message
from n6_stateful.sqlite import CorruptError as CorruptError
from n6_stateful.sqlite import SQLite, is_of_another_program, utc

JOURNAL_SPEC = """
[journal]
url = :: str
url_file = :: str
timeout = 30 :: float
directory = ~/.n6cache :: path
outbox_max_mib = 4096 :: int
keep_runs = 1000 :: int
"""
DEFAULTS = {"url": "", "url_file": "", "timeout": 30.0, "outbox_max_mib": 4096, "keep_runs": 1000}

KEPT_STATES = 10
ROWS_AT_ONCE = 500
BYTES_AT_ONCE = 4 << 20
BUFFER_IN_MEMORY = 16 << 20

# Large columns come last, since SQLite reads a row from its beginning. n6_collector comes last: if it exists,
# so do the others, although MariaDB creates each in a transaction of its own.
TABLES = """;
CREATE TABLE IF NOT EXISTS n6_state (name VARCHAR(255), number BIGINT, run VARCHAR(32), saved VARCHAR(20),
    sha256 VARCHAR(64), pickle {db.blob}, PRIMARY KEY (name, number)){db.suffix};
CREATE TABLE IF NOT EXISTS n6_outbox (id {db.serial}, name VARCHAR(255), message_id VARCHAR(255),
    exchange VARCHAR(255), routing_key VARCHAR(255), properties {db.text}, queued DOUBLE PRECISION,
    refused {db.text}, size BIGINT, body {db.blob}){db.suffix};
CREATE INDEX IF NOT EXISTS n6_outbox_name ON n6_outbox (name, id);
CREATE TABLE IF NOT EXISTS n6_run (name VARCHAR(255), started DOUBLE PRECISION, record {db.text},
    PRIMARY KEY (name, started)){db.suffix};
CREATE TABLE IF NOT EXISTS n6_collector (name VARCHAR(255) PRIMARY KEY, id VARCHAR(32), newest BIGINT,
    filed BIGINT, url VARCHAR(255)){db.suffix};
"""
GRANT = "-- GRANT SELECT, INSERT, UPDATE, DELETE ON each of these four tables TO the collector's user\n"
MESSAGE = "message_id, exchange, routing_key, properties, body, queued"
INSERT_MESSAGE = f"INSERT INTO n6_outbox (name, size, {MESSAGE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
FENCE = "UPDATE n6_collector SET newest = ? WHERE name = ? AND newest = ?"
WAITING = "FROM n6_outbox WHERE name = ? AND refused IS {null} AND id > ? "
OVERTAKEN = "another run has taken over; this one saved and published nothing; the next run goes on"
NOTHING = "nothing was saved or published"


class DamagedError(StateError):
    """A saved state is damaged: its hash does not match."""


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
        properties: without the message id.
        queued: when it was queued, in seconds since the epoch.
        refused: why the broker refused it, or None.
        size: of the body, in bytes.
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


def _waiting(row: Sequence[Any]) -> Waiting:
    return Waiting(*row)._replace(properties=json.loads(row[4]))


class Backlog(NamedTuple):
    """The number of waiting messages, their total size in bytes, how many of them the broker has refused, and
    when the oldest was queued (seconds since the epoch; None if there is none)."""

    messages: int
    bytes: int
    refused: int
    oldest: float | None


def configured_journal(options: Mapping[str, Any], path: Path) -> Journal:
    """A collector's journal: a file, or tables in the database of `[journal] url` or `url_file`.

    Args:
        path: `<directory>/<name>.sqlite`.
        options: those of `[journal]`.

    Raises:
        ConfigError: the URL is wrong, or the extra `sql` is missing.
    """
    options = {**DEFAULTS, **options}
    if not options["url"] and not options["url_file"]:
        return Journal(path, options)
    from n6_stateful.databases import database

    differences, options["url"] = database(options)  # they override what `Journal` inherits from `SQLite`
    made: Journal = type("DatabaseJournal", (differences, Journal), {})(path, options)
    return made


def journals_in(directory: Path) -> list[Journal]:
    """The journals in `directory`, including damaged ones, but no databases of other programs."""
    files = [path for path in sorted(directory.glob("*.sqlite")) if not is_of_another_program(path)]
    return [configured_journal(DEFAULTS, path) for path in files]


def schema(engine: str) -> str:
    """The SQL that creates the tables in `postgresql` or `mysql`, and a comment on the rights needed.

    Raises:
        ConfigError: there is no such engine.
    """
    from n6_stateful.databases import ENGINES, URL_FORM

    if engine not in ENGINES:
        raise ConfigError(URL_FORM)
    return TABLES.format(db=ENGINES[engine]).lstrip(";\n") + GRANT


class Journal(SQLite):
    """A collector's journal. `configured_journal` makes it.

    Every method raises `StateError` if the journal cannot be used; the text says what state things are in.
    For a corrupt file it is a `CorruptError`: a run that writes moves the file aside, and cannot commit any
    more until `unlock`.

    Attributes:
        name: the collector's, `<source>.<ClassName>`.
        where: for messages, without secrets.
        is_file: whether it is a file, at `path`, or in a database.
        is_locked: whether this object holds the lock.
        id: random, created with the journal; this and the attributes below are up to date after `open`.
        newest: the number of the last commit.
        filed: the number of the state in the state file.
        url: a digest of the source's URL.
        buffered: how many messages the next `commit` will write.
    """

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        super().__init__(path, options)
        self.newest = self.filed = 0
        self.url = ""
        self._max_mib, self._keep_runs = options["outbox_max_mib"], max(1, options["keep_runs"])
        self._file: IO[bytes] = BytesIO()  # the buffer
        self.buffered = self._buffered_bytes = self._waiting_bytes = 0

    def exists(self) -> bool:
        """Load the head, and return whether there is one. Creates nothing."""
        head = self._select("SELECT id, newest, filed, url FROM n6_collector WHERE name = ?", self._key)
        if head:
            self.id, self.newest, self.filed, self.url = head[0]
        return bool(head)

    def open(self) -> None:
        """Create the journal if it is missing, and load its head. Does nothing if it is open."""
        self._writes = True
        if self.id or self.exists():
            return
        tables = self.before_tables + TABLES.format(db=self) if self._has_no_tables else ""
        with self._transaction(NOTHING):
            for statement in filter(str.strip, tables.split(";")):
                self._execute(statement)
            head = f"INSERT INTO n6_collector VALUES (?, ?, 0, 0, '') {self.or_ignore}"  # noqa: S608
            self._execute(head, self._key, os.urandom(16).hex())
        self.exists()

    def lock(self) -> None:
        """Take the lock and `open`, loading the head. Does nothing if the lock is held.

        Raises:
            StateLockedError: another process holds it; the text names the process.
        """
        if not self.try_lock():
            holder = self.holder() or "it has just ended"
            raise StateLockedError(
                f"{self.where}: another run is in progress ({holder}); nothing was done; try again later"
            )

    def try_lock(self) -> bool:
        """Like `lock`, but return False if another process holds the lock."""
        if not self.is_locked:
            self._writes = True
            with self._errors("nothing was done"):
                self._execute("SELECT 1")  # connects, and creates the directory for the lock
                self.is_locked = self._take_lock()
            self.id = ""  # others may have committed since the head was loaded
        if self.is_locked:
            self.open()
        return self.is_locked

    def unlock(self) -> None:
        """Close the connection, release the lock, and discard the buffer."""
        self._close()
        with suppress(OSError):  # there may be none
            os.close(self._lock)
        self._lock, self.is_locked, self._ended, self.id = -1, False, None, ""
        self.discard()

    def set_url(self, digest: str) -> None:
        """Set the digest of the source's URL."""
        with self._transaction("nothing was changed"):
            self._execute("UPDATE n6_collector SET url = ? WHERE name = ?", digest, self._key)
        self.url = digest

    # Buffer and commit

    def put(self, message: Message) -> None:
        """Add a message to the buffer for the next `commit`.

        Raises:
            CollectorError: the message is larger than the database accepts.
            PublishError: the outbox would exceed `outbox_max_mib`.
            StateError: the buffer cannot be written; nothing can be committed any more.
        """
        if self._ended:
            raise self._ended
        self.open()
        properties = dict(message.properties)
        message_id, text = properties.pop("message_id"), json.dumps(properties)
        size = len(message.body)
        if size + len(text) > self.largest:
            raise CollectorError(self._too_large("message", size))
        if self.is_file and not self.buffered:
            self._waiting_bytes = self.backlog().bytes
        if self._waiting_bytes + self._buffered_bytes + size > self._max_mib << 20:
            raise PublishError(
                f"{self.where}: the outbox would exceed {self._max_mib} MiB (outbox_max_mib); nothing since "
                "the last save is published; deliver the outbox, raise the limit, or save more often"
            )
        try:
            self._buffer((self._key, size, message_id, *message[:2], text, time.time()), message.body)
        except OSError as exc:
            self._ended = StateError(
                f"{self.where}: a message could not be buffered ({exc}); nothing since the last save is "
                "saved or published; free some space for temporary files, then run again"
            )
            raise self._ended from exc

    def _too_large(self, what: str, size: int) -> str:
        limit = f"{self.limit} ({self.largest:,})"
        return f"{self.where}: a {what} of {size:,} bytes is larger than {limit}; {NOTHING}"

    def discard(self) -> None:
        """Empty the buffer."""
        with suppress(OSError):  # closing tries to write
            self._file.close()
        self._file, self.buffered, self._buffered_bytes = BytesIO(), 0, 0

    def _buffer(self, row: tuple[Any, ...], body: bytes) -> None:
        """Add a row to the buffer: in memory, beyond 16 MiB in an unnamed file."""
        end = self._file.seek(0, os.SEEK_END)  # reading may have ended anywhere
        if isinstance(self._file, BytesIO) and end + len(body) > BUFFER_IN_MEMORY:
            from tempfile import TemporaryFile  # here, since it is slow to import

            memory, directory = self._file, self.path.parent if self.is_file else None
            self._file = TemporaryFile(dir=directory)  # noqa: SIM115 - `discard` closes it
            self._file.write(memory.getbuffer())
        self._file.write(marshal.dumps(row))
        self._file.write(body)
        self.buffered += 1
        self._buffered_bytes += row[1]

    def _batches(self) -> Iterator[list[tuple[Any, ...]]]:
        """The buffered rows, in batches."""
        self._file.seek(0)
        rows: list[tuple[Any, ...]] = []
        size = 0
        for _ in range(self.buffered):
            *row, queued = marshal.load(self._file)  # noqa: S302 - ours; no other process can open it
            rows.append((*row, self._file.read(row[1]), queued))
            size += row[1]
            if len(rows) == ROWS_AT_ONCE or size > BYTES_AT_ONCE:
                yield rows
                rows.clear()  # large bodies are not held twice
                size = 0
        yield rows

    def commit(self, pickle: bytes | None = None, *, run: str = "", at_least: int = 0) -> int:
        """Write the buffer and a state, both or neither, durably.

        With the lock, this fails if another process has committed since `lock`. After an error the buffer is
        kept and a later commit may try again, unless the session, the lock or the file was lost: then it
        raises the same error.

        Args:
            pickle: the state; None to commit only the buffer.
            run: if the newest state has the same `run`, it is replaced; if empty, the state is added.
            at_least: the lowest allowed number for this commit.

        Returns:
            The number of this commit.

        Raises:
            StateError: nothing was saved or published; or, if the database's answer was lost, possibly all
                of it.
        """
        if self._ended:
            raise self._ended
        self.open()
        if pickle is not None and len(pickle) > self.largest:
            raise StateError(self._too_large("state", len(pickle)))
        with self._transaction(NOTHING):
            if not self.is_locked:  # make concurrent commits wait
                self._execute("UPDATE n6_collector SET newest = newest WHERE name = ?", self._key)
                self.exists()
            number = max(self.newest + 1, at_least)
            if self._execute(FENCE, number, self._key, self.newest).rowcount != 1:
                self._ended = StateError(f"{self.where}: {OVERTAKEN}")
                raise self._ended
            for rows in self._batches():
                self._execute_many(INSERT_MESSAGE, rows)
            if pickle is not None:
                self._put_state(number, run or os.urandom(16).hex(), pickle)
        self.newest = number
        self.discard()
        return number

    def _put_state(self, number: int, run: str, pickle: bytes) -> None:
        states = "FROM n6_state WHERE name = ? ORDER BY number DESC LIMIT 1"
        for newest, its_run in self._execute(f"SELECT number, run {states}", self._key).fetchall():
            if its_run == run:
                self._execute("DELETE FROM n6_state WHERE name = ? AND number = ?", self._key, newest)
        state = (self._key, number, run, utc(), hashlib.sha256(pickle).hexdigest(), pickle)
        self._execute("INSERT INTO n6_state VALUES (?, ?, ?, ?, ?, ?)", *state)
        prune = f"DELETE FROM n6_state WHERE name = ? AND number <= (SELECT number {states} OFFSET ?)"  # noqa: S608
        self._execute(prune, self._key, self._key, KEPT_STATES)

    # States

    def generations(self) -> list[Generation]:
        """The kept states, newest first."""
        select = "SELECT number, run, saved, sha256, LENGTH(pickle) FROM n6_state WHERE name = ?"
        return [Generation(*row) for row in self._select(f"{select} ORDER BY number DESC", self._key)]

    def pickle(self, number: int) -> bytes:
        """The state with that number.

        Raises:
            DamagedError: its hash does not match.
            StateError: there is no such state.
        """
        select = "SELECT pickle, sha256 FROM n6_state WHERE name = ? AND number = ?"
        for pickle, sha256 in self._select(select, self._key, number):
            if hashlib.sha256(pickle).hexdigest() == sha256:
                return bytes(pickle)
            raise DamagedError(f"{self.where}: state {number} is damaged")
        raise StateError(f"{self.where}: there is no state {number} (any more)")

    def mark_filed(self, number: int) -> None:
        """Record that the state file has the state with that number."""
        with self._transaction("the state file is newer than the journal records, which is harmless"):
            self._execute("UPDATE n6_collector SET filed = ? WHERE name = ?", number, self._key)
        self.filed = number

    # Outbox

    def backlog(self) -> Backlog:
        """The size of the outbox."""
        select = "SELECT COUNT(*), COALESCE(SUM(size), 0), COUNT(refused), MIN(queued) FROM n6_outbox"
        for count, size, refused, oldest in self._select(f"{select} WHERE name = ?", self._key):
            return Backlog(count, int(size), refused, oldest)
        return Backlog(0, 0, 0, None)

    def waiting(self) -> Iterator[Waiting]:
        """The waiting messages, oldest first; those that the broker has refused come last.

        No transaction is open between two messages. A message that is refused meanwhile is returned again.
        """
        for null in ("NULL", "NOT NULL"):
            last = 0
            while ids := self._next_batch(null, last):
                select = (
                    f"SELECT id, {MESSAGE}, refused, size {WAITING.format(null=null)} AND id <= ? ORDER BY id"
                )
                rows = self._select(select, self._key, last, ids[-1])[::-1]
                while rows:  # a large body is not held here while it is sent
                    yield _waiting(rows.pop())
                last = ids[-1]

    def _next_batch(self, null: str, last: int) -> list[int]:
        """The ids of the messages after `last` to read, or delete, in one batch."""
        select = f"SELECT id, size {WAITING.format(null=null)} ORDER BY id LIMIT {ROWS_AT_ONCE}"
        rows = self._select(select, self._key, last)
        fitting = sum(total <= BYTES_AT_ONCE for total in accumulate(size for _, size in rows))
        return [id for id, _ in rows[: max(1, fitting)]]

    def delivered(self, ids: Sequence[int]) -> None:
        """Delete messages that the broker has confirmed, or that an operator drops."""
        with self._transaction("the messages just delivered will be sent again, with the same ids"):
            self._delete(ids)
        if self.is_file and not self._select("SELECT 1 FROM n6_outbox LIMIT 1"):
            self._shrink()

    def _delete(self, ids: Sequence[int]) -> None:
        for at in range(0, len(ids), ROWS_AT_ONCE):
            some = ", ".join(str(int(id)) for id in ids[at : at + ROWS_AT_ONCE])
            self._execute(f"DELETE FROM n6_outbox WHERE name = ? AND id IN ({some})", self._key)  # noqa: S608

    def refuse(self, reasons: Mapping[int, str]) -> None:
        """Record why the broker has refused messages, by their ids."""
        rows = [(reason.replace("\0", " "), self._key, id) for id, reason in reasons.items()]
        with self._transaction("the refusal of messages was not recorded"):
            self._execute_many("UPDATE n6_outbox SET refused = ? WHERE name = ? AND id = ?", rows)

    def prove_deletable(self) -> None:
        """Raise `StateError` if delivered messages could not be deleted; nothing is changed."""
        ids = self._next_batch("NULL", 0) or self._next_batch("NOT NULL", 0)
        with self._transaction("nothing was sent, since every run would send it again", end="ROLLBACK"):
            self._delete(ids)

    # Runs

    def put_run(self, started: float, record: Mapping[str, Any]) -> None:
        """Save the record of the run that began at `started` (seconds since the epoch), replacing its earlier
        record; delete the oldest records beyond `keep_runs`."""
        oldest = "SELECT started FROM n6_run WHERE name = ? ORDER BY started DESC LIMIT 1 OFFSET ?"
        prune = f"DELETE FROM n6_run WHERE name = ? AND started <= ({oldest})"  # noqa: S608 - a constant
        self.open()
        with self._transaction("the record of this run was not saved"):
            self._execute("DELETE FROM n6_run WHERE name = ? AND started = ?", self._key, started)
            self._execute("INSERT INTO n6_run VALUES (?, ?, ?)", self._key, started, json.dumps(dict(record)))
            self._execute(prune, self._key, self._key, self._keep_runs)

    def runs(self, last: int | None = None) -> list[dict[str, Any]]:
        """The records of all runs, or of the last few, oldest first; `start` is when each began."""
        select = "SELECT started, record FROM n6_run WHERE name = ? ORDER BY started DESC LIMIT ?"
        rows = self._select(select, self._key, self._keep_runs if last is None else last)
        return [{**json.loads(record), "start": started} for started, record in reversed(rows)]
