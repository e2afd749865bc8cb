"""The spool: messages in one SQLite file on this machine, until they are forwarded.

What a run publishes between two saves of its state is one transaction: it appears all together or not at all.
A message id is there once, so a run that is repeated adds nothing twice; the ids of messages that were
forwarded are remembered as long as such a run may still come. What a broker refuses is set apart with the
reason.

The journal is SQLite's rollback journal, not a WAL: the spool then is a single file while nobody writes, and
`synchronous = EXTRA` makes a commit survive a power cut (https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from n6_stateful import typed_json
from n6_stateful.errors import BusyError, PublishError, StateError
from n6_stateful.message import Exchange, Message, Undelivered
from n6_stateful.state.file import check_safe, make_private_directories

LOGGER = logging.getLogger(__name__)

APPLICATION_ID = 0x6E365350  # "n6SP"
VERSION = 2
BUSY_SECONDS = 30.0
ROWS_AT_ONCE = 500
BYTES_AT_ONCE = 4 << 20
LISTED_AT_ONCE = 500
PROBE_BYTES = 1 << 16

_SCHEMA = """
CREATE TABLE message (
    number INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    generation TEXT NOT NULL,
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    properties TEXT NOT NULL,
    spooled REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE exchange (name TEXT PRIMARY KEY, type TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE forwarded (
    message_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    generation TEXT NOT NULL
) WITHOUT ROWID
"""
# What takes a file from each version to the next. Not a column of `message`: behind the body, it would have
# SQLite read each body on its way there.
_UPGRADES = {
    1: "CREATE TABLE refused (number INTEGER PRIMARY KEY, reason TEXT NOT NULL, attempt INTEGER NOT NULL)"
}

# Not OR IGNORE, which would ignore a message that lacks a value, too.
_INSERT = """
INSERT INTO message
    (message_id, owner, generation, exchange, routing_key, properties, spooled, body)
SELECT * FROM (SELECT ? AS message_id, ?, ?, ?, ?, ?, ?, ?) AS new
WHERE NOT EXISTS (SELECT 1 FROM forwarded WHERE forwarded.message_id = new.message_id)
ON CONFLICT (message_id) DO NOTHING
"""
_WAITING = """
SELECT number, spooled, length(body), reason, owner,
    message_id, generation, exchange, routing_key, properties, {body}
FROM message LEFT JOIN refused USING (number) WHERE {which} ORDER BY number LIMIT ?
"""
_WITHOUT_BODIES = _WAITING.format(body="x''", which="number > ?")
# An id in full is that of one message, though others begin with it.
_BEGINS_SO = """
message_id = ?1 OR substr(message_id, 1, length(?1)) = ?1 AND ?1 NOT IN (SELECT message_id FROM message)
"""
_WITH_ID = _WAITING.format(body="body", which=_BEGINS_SO)
TO_FORWARD = _WAITING.format(body="body", which="ifnull(attempt, 0) BETWEEN ? AND ?")
EXCHANGES = """
SELECT name, type FROM exchange WHERE name IN (
    SELECT exchange FROM message LEFT JOIN refused USING (number) WHERE ifnull(attempt, 0) BETWEEN ? AND ?
)
"""
SET_APART = "INSERT OR REPLACE INTO refused SELECT number, ?, ? FROM message WHERE {which} = ?"
_REFUSED = """
SELECT routing_key, message_id, length(body), reason
FROM refused JOIN message USING (number) ORDER BY number
"""
_DECLARE = """
INSERT INTO exchange VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET type = excluded.type WHERE type != excluded.type
"""
_BACKLOG = "SELECT count(*), (SELECT count(*) FROM refused), min(spooled) FROM message"
_FORGET = "DELETE FROM forwarded WHERE owner = ? AND generation NOT IN (SELECT value FROM json_each(?))"


class Spooled(NamedTuple):
    """A message that waits; `refused` is why a broker did not take it, None if none has refused it."""

    number: int
    spooled: float
    size: int
    refused: str | None
    owner: str
    message: Message

    @property
    def message_id(self) -> str:
        """The message's id."""
        return str(self.message.properties["message_id"])

    @property
    def way(self) -> tuple[str, ...]:
        """The message's exchange and routing key."""
        return self.message[:2]


class Backlog(NamedTuple):
    """How many messages wait, how many of them were refused, and when the oldest of them was spooled, seconds
    since the epoch (None if there is none)."""

    waiting: int
    refused: int
    oldest: float | None


class Spool:
    """The spool at `path`, an `Output`.

    Args:
        path: the file; it and its directory are made by the first run.
        max_mib: its largest size, MiB; a message that does not fit is an error, none is ever dropped.
        silence: for how many seconds a broker may hold up whoever forwards; a run waits as much longer.
    """

    problem: str | None = None

    def __init__(self, path: Path, max_mib: int = 4096, silence: float = 0) -> None:
        self.path = path
        self.where = f"the spool {path}"
        self._max_mib = max_mib
        self._silence = silence
        self._database: sqlite3.Connection | None = None
        self._owner = ""
        self._rows: list[tuple[Any, ...]] = []
        self._rows_bytes = 0
        self._uncommitted = 0  # messages
        self._others: dict[str, Any] = {}
        self._json = "{}"

    # Output

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        """Open the file, make it if need be, and forget what needs to be remembered no longer."""
        self._owner = owner
        # Those of a state are two or more; without one there is only the run's own, or that of no state.
        if len(generations) > 1 and not self.exists():
            LOGGER.warning("%s is new; if there was one before, what waited in it is gone", self.where)
        with self._errors():
            self._database = database = self._connect(create=True)
            # Not for a forward: to drop a message it must remember its id, in a full spool, too.
            (page_size,) = database.execute("PRAGMA page_size").fetchone()
            database.execute(f"PRAGMA max_page_count = {(self._max_mib << 20) // page_size}")
            database.execute("BEGIN IMMEDIATE")
            database.executemany(_DECLARE, exchanges)
            if generations:
                database.execute(_FORGET, (owner, json.dumps(list(generations))))
            database.execute("COMMIT")

    def publish(self, message: Message) -> None:
        """Add the message to the transaction, unless its id is there or was forwarded already."""
        exchange, routing_key, body, properties, generation = message
        others = {name: value for name, value in properties.items() if name != "message_id"}
        if "headers" in others or others != self._others:  # without headers, they seldom change
            self._others, self._json = others, json.dumps(typed_json.dump(others))
        about = (properties["message_id"], self._owner, generation, exchange, routing_key)
        row = (*about, self._json, time.time(), body)
        self._rows.append(row)
        self._rows_bytes += len(body)
        self._uncommitted += 1
        if len(self._rows) >= ROWS_AT_ONCE or self._rows_bytes >= BYTES_AT_ONCE:
            self._write()

    def flush(self) -> None:
        """Commit."""
        self._write()
        database = self._opened()
        with self._writing():
            if database.in_transaction:
                database.execute("COMMIT")
        self._uncommitted = 0

    def close(self) -> None:
        """Commit, and close the file."""
        self.flush()
        self._opened().close()
        self._database = None

    def abort(self) -> None:
        """Roll back, and close the file."""
        self._rows.clear()
        with suppress(sqlite3.Error):
            if self._database is not None:
                self._database.close()  # an open transaction is rolled back
        self._database = None

    def check(self, exchanges: Sequence[Exchange]) -> None:
        """Find out whether it can be written to, and has room; where there is no file yet, none is made."""
        from tempfile import TemporaryFile

        if self.exists():
            with self.connected() as database, self.transaction(database):
                pass
        with self._errors():
            self._check_safe()
            directory = next(each for each in self.path.parents if each.is_dir())
            with TemporaryFile(dir=directory) as file:
                file.write(bytes(PROBE_BYTES))

    def _write(self) -> None:
        """Add the rows to the transaction."""
        database = self._opened()
        if not self._rows:
            return
        with self._writing():
            if not database.in_transaction:
                database.execute("BEGIN IMMEDIATE")
            database.executemany(_INSERT, self._rows)
        self._rows.clear()
        self._rows_bytes = 0

    # For people, and for forwarding

    def messages(self) -> Iterator[Spooled]:
        """The messages that wait, oldest first, without their bodies; `size` is that of the body, bytes."""
        after = 0
        # In pieces, since whoever reads slowly would hold up everybody who writes.
        while found := self._select(_WITHOUT_BODIES, after, LISTED_AT_ONCE):
            yield from found
            after = found[-1].number

    def message(self, message_id: str) -> Spooled | None:
        """The message with that id, or whose id alone begins so."""
        if not message_id or not message_id.isascii():
            return None
        found = self._select(_WITH_ID, message_id, 2)
        return found[0] if len(found) == 1 else None

    def summary(self) -> tuple[int, int]:
        """How many messages wait, and how many bytes their bodies have."""
        if not self.exists():
            return 0, 0
        with self.connected() as database:
            count, size = database.execute("SELECT count(*), total(length(body)) FROM message").fetchone()
        return count, int(size)

    def backlog(self) -> Backlog:
        """What waits, in figures."""
        if not self.exists():
            return Backlog(0, 0, None)
        with self.connected() as database:
            return Backlog(*database.execute(_BACKLOG).fetchone())

    def refusal(self) -> PublishError | None:
        """The error that tells what brokers have refused; None if nothing is set apart."""
        if not self.exists():
            return None
        with self.connected() as database:
            refused = [Undelivered(*row) for row in database.execute(_REFUSED)]
        if not refused:
            return None
        return PublishError(
            f"some messages were refused ({refused[0].reason}), and set apart in {self.where}",
            refused,
            "nothing is lost: they are tried again at each forward, and hold up nothing else. Mend the "
            "broker (bind a queue, raise its limits), or give a message up with `spool drop ID`",
        )

    def drop(self, spooled: Spooled) -> None:
        """Take a message out for good, and remember its id, as if it were forwarded."""
        with self.connected() as database, self.transaction(database):
            take_out(database, [spooled])

    def _select(self, query: str, *parameters: Any) -> list[Spooled]:
        if not self.exists():
            return []
        with self.connected() as database:
            return list(select(database, query, *parameters))

    # The file

    def exists(self) -> bool:
        """Whether there is a file."""
        with self._errors():
            return self.path.exists()

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """A connection to the file, which must be there; its errors are raised as `PublishError`."""
        with self._errors():
            database = self._connect()
            try:
                yield database
            finally:
                database.close()

    @contextmanager
    def transaction(self, database: sqlite3.Connection) -> Iterator[None]:
        """One in which nobody else can write; an error leaves it open, to be rolled back with the connection.

        Raises:
            BusyError: somebody else goes on writing.
        """
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as exc:
            if _code(exc) == sqlite3.SQLITE_BUSY:
                raise BusyError(f"another process is writing to {self.where}; try again later") from exc
            raise
        yield
        database.execute("COMMIT")

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise PublishError(f"{self.where} is not open, or an earlier error has closed it")
        return self._database

    def _check_safe(self) -> None:
        """Refuse a file, a journal of SQLite's or a directory that somebody else could have written to."""
        names = [self.path.name + suffix for suffix in ("", "-journal", "-wal")]
        for path in (self.path.parent, *map(self.path.with_name, names)):
            with suppress(FileNotFoundError):
                status = path.stat(follow_symlinks=path == self.path.parent)
                if stat.S_ISLNK(status.st_mode):
                    raise StateError(f"{path}: is a symbolic link; put the file itself there")
                check_safe(path, status)

    def _connect(self, *, create: bool = False) -> sqlite3.Connection:
        if create:
            make_private_directories(self.path.parent)
        self._check_safe()
        if create:
            # SQLite would make it readable for others.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        patience = BUSY_SECONDS + (self._silence if create else 0)
        database = sqlite3.connect(self.path, timeout=patience, isolation_level=None)
        try:
            database.execute("PRAGMA synchronous = EXTRA")
            # Some systems' SQLite would overwrite what is deleted, and need as much room for the journal.
            database.execute("PRAGMA secure_delete = OFF")
            self._bring_up_to_date(database)
        except BaseException:
            database.close()
            raise
        return database

    def _bring_up_to_date(self, database: sqlite3.Connection) -> None:
        if _pragma(database, "user_version") < VERSION:
            database.execute("BEGIN EXCLUSIVE")
            if not database.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                database.execute("PRAGMA user_version = 1")
            if _pragma(database, "application_id") == APPLICATION_ID:
                for version in range(_pragma(database, "user_version"), VERSION):  # or somebody was faster
                    database.execute(_UPGRADES[version])
                database.execute(f"PRAGMA user_version = {VERSION}")
            database.execute("COMMIT")
        if _pragma(database, "application_id") != APPLICATION_ID:
            raise PublishError(f"{self.path} is an SQLite file, but not a spool; nothing was published")
        if (version := _pragma(database, "user_version")) > VERSION:
            raise PublishError(
                f"{self.where} was written by a newer n6-stateful-runtime (format {version}, this one knows "
                f"{VERSION}); nothing was published; upgrade the runtime"
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._errors():
                yield
        except PublishError:
            # SQLite may have rolled back by itself: no later commit must pass for the whole.
            self.abort()
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except StateError as exc:
            what = str(exc).replace("a state of", "messages of")
            mend = "or keep the spool in a directory of its own; nothing was published"
            raise PublishError(f"{self.where} cannot be used: {what}; {mend}") from exc
        except OSError as exc:
            mend = "; run this as the user who runs the collector" if isinstance(exc, PermissionError) else ""
            raise PublishError(
                f"{self.where} cannot be used: {exc.strerror}; nothing was published{mend}"
            ) from exc
        except sqlite3.Error as exc:
            # To list every message of a large run would be to keep it in memory.
            rolled_back = (
                f"everything that this run has published since its last save ({self._uncommitted:,}) is "
                "rolled back, and "
            )
            raise PublishError(
                f"{self.where} {self._reason(exc)}",
                [Undelivered(row[4], row[0], len(row[7]), "not spooled") for row in self._rows],
                (rolled_back if self._uncommitted else "") + "the state stays as it was",
            ) from exc

    def _reason(self, exc: sqlite3.Error) -> str:
        if isinstance(exc, sqlite3.DataError):
            return f"does not take so large a message ({exc})"
        match _code(exc):
            case sqlite3.SQLITE_BUSY:
                return "is still locked by another process; try again later"
            case sqlite3.SQLITE_FULL:
                return (
                    f"is full: it has reached its {self._max_mib} MiB (spool_max_mib), or the disk has no "
                    "space left (a forward needs some, too); make room, or forward it (`spool forward`)"
                )
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return (
                    f"cannot be opened for writing ({exc}): see that it and its directory belong to the user "
                    "who runs the collector, and run as that user"
                )
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return f"is damaged or not a spool ({exc}); move it away (sqlite3 has `.recover`)"
        return f"failed: {exc}"


def select(database: sqlite3.Connection, query: str, *parameters: Any) -> Iterator[Spooled]:
    """The messages that one of the queries above finds."""
    for row in database.execute(query, parameters):
        number, spooled, size, refused, owner, message_id, generation, exchange, routing_key, text, body = row
        properties = json.loads(text)
        with suppress(ValueError):  # version 1 kept headers as they were, "$" and all
            properties = typed_json.load(properties)
        message = Message(exchange, routing_key, body, {"message_id": message_id, **properties}, generation)
        yield Spooled(number, spooled, size, refused, owner, message)


def take_out(database: sqlite3.Connection, batch: Sequence[Spooled]) -> list[Spooled]:
    """Take messages out, and remember their ids; those of them that were still there."""
    # First out, so that what is remembered finds room in the file.
    delete = "DELETE FROM message WHERE number = ? AND message_id = ?"
    there = [each for each in batch if database.execute(delete, (each.number, each.message_id)).rowcount]
    database.executemany("DELETE FROM refused WHERE number = ?", ((each.number,) for each in there))
    database.executemany(
        "INSERT OR IGNORE INTO forwarded VALUES (?, ?, ?)",
        ((each.message_id, each.owner, each.message.generation) for each in there),
    )
    return there


def _pragma(database: sqlite3.Connection, name: str) -> int:
    (value,) = database.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _code(exc: sqlite3.Error) -> int:
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF
