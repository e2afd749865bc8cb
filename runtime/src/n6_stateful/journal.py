"""The journal: one collector's memory, a small database that is changed in short transactions.

    n6_collector  its head: how many commits there were, which state the state file has
    n6_state      the last ten states
    n6_outbox     the messages that the broker has not confirmed yet
    n6_run        the records of its runs

`put` keeps a message in a buffer. `commit` writes the buffer and the state in one transaction: durable
together, or not at all. Its first statement is the fence: the head must be as this run has seen it last, so a
run that was frozen and overtaken commits nothing.

All SQL is here, the same for SQLite, PostgreSQL and MariaDB; sessions, and what the engines say differently,
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

# Large columns are the last ones: SQLite reads a row from its beginning. n6_collector is the last table: if
# it is there, so are the others, though MariaDB makes each in a transaction of its own.
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
OVERTAKEN = "another run has taken over; nothing was saved or published by this one; the next run goes on"
NOTHING = "nothing was saved or published"


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
        return Journal(path, options)
    from n6_stateful.databases import database

    differences, options["url"] = database(options)  # they override what `Journal` inherits from `SQLite`
    made: Journal = type("DatabaseJournal", (differences, Journal), {})(path, options)
    return made


def journals_in(directory: Path) -> list[Journal]:
    """The journals that are files in `directory`: damaged ones, too, but no databases of other programs."""
    files = [path for path in sorted(directory.glob("*.sqlite")) if not is_of_another_program(path)]
    return [configured_journal(DEFAULTS, path) for path in files]


def schema(engine: str) -> str:
    """The SQL that makes the tables in `postgresql` or `mysql`, and a comment on the rights that are needed.

    Raises:
        ConfigError: there is no such engine.
    """
    from n6_stateful.databases import ENGINES, URL_FORM

    if engine not in ENGINES:
        raise ConfigError(URL_FORM)
    return TABLES.format(db=ENGINES[engine]).lstrip(";\n") + GRANT


class Journal(SQLite):
    """A collector's journal. `configured_journal` makes it.

    Every method raises `StateError` if the journal cannot be used; the text says how things stand. If the
    file is corrupt, that is a `CorruptError`; whoever writes moves the file aside, and can commit nothing
    more before `unlock`.

    Attributes:
        name: of the collector, `<source>.<ClassName>`.
        where: for people, without secrets.
        is_file: whether it is a file, at `path`; else it is in a database.
        is_locked: whether this object holds the lock.
        id: random, made with the journal; this one and those below are current after `open`.
        newest: number of the last commit.
        filed: number of the state that the state file has.
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
        """Load the head; whether there is one. Makes nothing."""
        head = self._select("SELECT id, newest, filed, url FROM n6_collector WHERE name = ?", self._key)
        if head:
            self.id, self.newest, self.filed, self.url = head[0]
        return bool(head)

    def open(self) -> None:
        """Make the journal if it is missing, and load its head. Does nothing if it is open."""
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
            StateLockedError: another process has it; the text names it.
        """
        if not self.try_lock():
            holder = self.holder() or "it has just ended"
            raise StateLockedError(
                f"{self.where}: another run is in progress ({holder}); nothing was done; try again later"
            )

    def try_lock(self) -> bool:
        """As `lock`, but return False if another process has the lock."""
        if not self.is_locked:
            self._writes = True
            with self._errors("nothing was done"):
                self._execute("SELECT 1")  # connects, and makes the directory for the lock
                self.is_locked = self._take_lock()
            self.id = ""  # others may have committed since it was loaded
        if self.is_locked:
            self.open()
        return self.is_locked

    def unlock(self) -> None:
        """Close the connection and give the lock back; the buffer is discarded."""
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
        message_id, text = properties.pop("message_id"), json.dumps(properties)
        size = len(message.body)
        if size + len(text) > self.largest:
            raise CollectorError(self._too_large("message", size))
        if self.is_file and not self.buffered:
            self._waiting_bytes = self.backlog().bytes
        if self._waiting_bytes + self._buffered_bytes + size > self._max_mib << 20:
            raise PublishError(
                f"{self.where}: the outbox would exceed {self._max_mib} MiB (outbox_max_mib); nothing since "
                "the last save is published; deliver what waits, raise the limit, or save in between"
            )
        try:
            self._buffer((self._key, size, message_id, *message[:2], text, message.body, time.time()))
        except OSError as exc:
            self._ended = StateError(
                f"{self.where}: a message could not be buffered ({exc}); nothing since the last save is "
                "saved or published; make room for temporary files, then run again"
            )
            raise self._ended from exc

    def _too_large(self, what: str, size: int) -> str:
        limit = f"{self.limit} ({self.largest:,})"
        return f"{self.where}: a {what} of {size:,} bytes is larger than {limit}; {NOTHING}"

    def discard(self) -> None:
        """Forget what the next `commit` would write."""
        with suppress(OSError):  # what could not be written is forgotten, too
            self._file.close()
        self._file, self.buffered, self._buffered_bytes = BytesIO(), 0, 0

    def _buffer(self, row: tuple[Any, ...]) -> None:
        """Keep a row in memory, or beyond 16 MiB in a file without a name."""
        packed, end = marshal.dumps(row), self._file.seek(0, os.SEEK_END)  # reading may have ended anywhere
        if isinstance(self._file, BytesIO) and end + len(packed) > BUFFER_IN_MEMORY:
            from tempfile import TemporaryFile  # late, since it is slow to import

            memory, directory = self._file, self.path.parent if self.is_file else None
            self._file = TemporaryFile(dir=directory)  # noqa: SIM115 - `discard` closes it
            self._file.write(memory.getbuffer())
        self._file.write(packed)
        self.buffered += 1
        self._buffered_bytes += row[1]

    def _batches(self) -> Iterator[list[tuple[Any, ...]]]:
        """What is in the buffer, a few rows at a time."""
        self._file.seek(0)
        rows: list[tuple[Any, ...]] = []
        size = 0
        for _ in range(self.buffered):
            rows.append(marshal.load(self._file))  # noqa: S302 - ours, and nobody else can open it
            size += rows[-1][1]
            if len(rows) == ROWS_AT_ONCE or size > BYTES_AT_ONCE:
                yield rows
                rows, size = [], 0
        yield rows

    def commit(self, pickle: bytes | None = None, *, run: str = "", at_least: int = 0) -> int:
        """Make the buffer and a state durable, together.

        With the lock, only if nobody else has committed since `lock`. After an error the buffer is kept, and
        a later commit may try again, unless the session, the lock or the file was lost: then it raises the
        same error.

        Args:
            pickle: the state; None if only the buffer is committed.
            run: the state replaces the newest one if that has the same `run`; empty: it is added.
            at_least: the lowest number that this commit may have.

        Returns:
            The number of this commit.

        Raises:
            StateError: nothing was saved or published, or, if the answer of the database was lost, all of it
                may have been.
        """
        if self._ended:
            raise self._ended
        self.open()
        if pickle is not None and len(pickle) > self.largest:
            raise StateError(self._too_large("state", len(pickle)))
        with self._transaction(NOTHING):
            if not self.is_locked:  # others may commit at the same time: this makes them wait
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
        """The states that are kept, the newest first."""
        select = "SELECT number, run, saved, sha256, LENGTH(pickle) FROM n6_state WHERE name = ?"
        return [Generation(*row) for row in self._select(f"{select} ORDER BY number DESC", self._key)]

    def pickle(self, number: int) -> bytes:
        """The state of that number.

        Raises:
            DamagedError: its hash does not match.
            StateError: there is none.
        """
        select = "SELECT pickle, sha256 FROM n6_state WHERE name = ? AND number = ?"
        for pickle, sha256 in self._select(select, self._key, number):
            if hashlib.sha256(pickle).hexdigest() == sha256:
                return bytes(pickle)
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
                select = (
                    f"SELECT id, {MESSAGE}, refused, size {WAITING.format(null=null)} AND id <= ? ORDER BY id"
                )
                for row in self._select(select, self._key, last, ids[-1]):
                    yield Waiting(*row)._replace(properties=json.loads(row[4]))
                last = ids[-1]

    def _next_batch(self, null: str, last: int) -> list[int]:
        """The ids of as many messages behind `last` as are read, or deleted, at once."""
        select = f"SELECT id, size {WAITING.format(null=null)} ORDER BY id LIMIT {ROWS_AT_ONCE}"
        rows = self._select(select, self._key, last)
        fitting = sum(total <= BYTES_AT_ONCE for total in accumulate(size for _, size in rows))
        return [id for id, _ in rows[: max(1, fitting)]]

    def delivered(self, ids: Sequence[int]) -> None:
        """Delete those messages: the broker has confirmed them, or they are given up."""
        with self._transaction("what was delivered just now will be sent again, with the same ids"):
            self._delete(ids)
        if self.is_file and not self._select("SELECT 1 FROM n6_outbox LIMIT 1"):
            self._shrink()

    def _delete(self, ids: Sequence[int]) -> None:
        for at in range(0, len(ids), ROWS_AT_ONCE):
            some = ", ".join(str(int(id)) for id in ids[at : at + ROWS_AT_ONCE])
            self._execute(f"DELETE FROM n6_outbox WHERE name = ? AND id IN ({some})", self._key)  # noqa: S608

    def refuse(self, reasons: Mapping[int, str]) -> None:
        """Keep why the broker has refused those messages, by their ids."""
        rows = [(reason.replace("\0", " "), self._key, id) for id, reason in reasons.items()]
        with self._transaction("that messages were refused is not kept"):
            self._execute_many("UPDATE n6_outbox SET refused = ? WHERE name = ? AND id = ?", rows)

    def prove_deletable(self) -> None:
        """Return if the first messages could be deleted once they are delivered; nothing is changed."""
        ids = self._next_batch("NULL", 0) or self._next_batch("NOT NULL", 0)
        with self._transaction("nothing was sent, since every run would send it again", end="ROLLBACK"):
            self._delete(ids)

    # Runs

    def put_run(self, started: float, record: Mapping[str, Any]) -> None:
        """Keep the record of the run that began then (seconds since the epoch), in the place of an earlier
        record of it; the oldest ones beyond `keep_runs` go."""
        oldest = "SELECT started FROM n6_run WHERE name = ? ORDER BY started DESC LIMIT 1 OFFSET ?"
        prune = f"DELETE FROM n6_run WHERE name = ? AND started <= ({oldest})"  # noqa: S608 - a constant
        self.open()
        with self._transaction("the record of this run is not kept"):
            self._execute("DELETE FROM n6_run WHERE name = ? AND started = ?", self._key, started)
            self._execute("INSERT INTO n6_run VALUES (?, ?, ?)", self._key, started, json.dumps(dict(record)))
            self._execute(prune, self._key, self._key, self._keep_runs)

    def runs(self, last: int | None = None) -> list[dict[str, Any]]:
        """The records of the runs, or of the last ones, oldest first; `start` is when each began."""
        select = "SELECT started, record FROM n6_run WHERE name = ? ORDER BY started DESC LIMIT ?"
        rows = self._select(select, self._key, self._keep_runs if last is None else last)
        return [{**json.loads(record), "start": started} for started, record in reversed(rows)]
