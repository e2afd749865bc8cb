"""The spool: messages in one SQLite file on this machine, until they are forwarded.

What a run publishes between two saves of its state is one transaction: it appears all together or not at all.
A message id is there once, so a run that is repeated adds nothing twice; the ids of messages that were
forwarded are remembered as long as such a run may still come. What a broker refuses is set apart with the
reason, and holds up nothing.

The journal is SQLite's rollback journal, not a WAL: the spool then is a single file while nobody writes, and
`synchronous = EXTRA` makes a commit survive a power cut (https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from n6_stateful import typed_json
from n6_stateful.errors import BusyError, CollectorError, PublishError
from n6_stateful.message import Exchange, Message, Undelivered, check

if TYPE_CHECKING:
    from n6_stateful.output.base import Output

APPLICATION_ID = 0x6E365350  # "n6SP"
VERSION = 2
BUSY_SECONDS = 30.0
ROWS_AT_ONCE = 500
BYTES_AT_ONCE = 4 << 20
FORWARD_MESSAGES = 1000
FORWARD_BYTES = 16 << 20
LISTED_AT_ONCE = 500

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
# What takes a file from each version to the next.
_UPGRADES = {1: "ALTER TABLE message ADD COLUMN refused TEXT"}

# Not OR IGNORE, which would ignore a message that lacks a value, too.
_INSERT = """
INSERT INTO message
    (message_id, owner, generation, exchange, routing_key, properties, spooled, body)
SELECT * FROM (SELECT ? AS message_id, ?, ?, ?, ?, ?, ?, ?) AS new
WHERE NOT EXISTS (SELECT 1 FROM forwarded WHERE forwarded.message_id = new.message_id)
ON CONFLICT (message_id) DO NOTHING
"""
_WAITING = """
SELECT number, spooled, length(body), refused,
    message_id, generation, exchange, routing_key, properties, {body}
FROM message WHERE {which} ORDER BY number LIMIT ?
"""
_WITHOUT_BODIES = _WAITING.format(body="x''", which="number > ?")
_TO_FORWARD = _WAITING.format(body="body", which="number > ? AND (refused IS NOT NULL) = ?")
_WITH_ID = _WAITING.format(body="body", which="substr(message_id, 1, length(?1)) = ?1")
_EXCHANGES = "SELECT name, type FROM exchange WHERE name IN (SELECT exchange FROM message)"
_SOME_ARE_OVER = """
SELECT 1 FROM forwarded
WHERE owner = ? AND generation NOT IN (SELECT value FROM json_each(?)) LIMIT 1
"""
_FORGET = "DELETE FROM forwarded WHERE owner = ? AND generation NOT IN (SELECT value FROM json_each(?))"
_REMEMBER = (
    "INSERT OR IGNORE INTO forwarded SELECT message_id, owner, generation FROM message WHERE number = ?"
)


class Spooled(NamedTuple):
    """A message that waits; `refused` is why a broker did not take it, None if none was asked yet."""

    number: int
    spooled: float
    size: int
    refused: str | None
    message: Message

    @property
    def message_id(self) -> str:
        """The message's id."""
        return str(self.message.properties["message_id"])


class Forwarded(NamedTuple):
    """What a forward did: how many messages the broker took, and those that it refused."""

    sent: int
    refused: list[Undelivered]


class Spool:
    """The spool at `path`, an `Output`.

    Args:
        path: the file; it and its directory are made by the first run.
        max_mib: its largest size, MiB; a message that does not fit is an error, none is ever dropped.
    """

    problem: str | None = None

    def __init__(self, path: Path, max_mib: int = 4096) -> None:
        self.path = path
        self.where = f"the spool {path}"
        self._max_mib = max_mib
        self._database: sqlite3.Connection | None = None
        self._owner = ""
        self._rows: list[tuple[Any, ...]] = []
        self._rows_bytes = 0
        self._uncommitted = 0  # messages
        self._plain: dict[str, Any] = {}
        self._plain_json = "{}"

    # Output

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        """Open the file, make it if need be, and forget what needs to be remembered no longer."""
        self._owner = owner
        with self._errors():
            self.path.parent.mkdir(0o700, parents=True, exist_ok=True)
            self._database = database = self._connect(create=True)
            # Not for a forward: to drop a message it has to remember its id, in a full spool, too.
            (page_size,) = database.execute("PRAGMA page_size").fetchone()
            database.execute(f"PRAGMA max_page_count = {(self._max_mib << 20) // page_size}")
            known = set(database.execute("SELECT name, type FROM exchange"))
            over = (owner, json.dumps(list(generations)))
            if database.execute(_SOME_ARE_OVER, over).fetchone() or not known.issuperset(exchanges):
                database.execute("BEGIN IMMEDIATE")
                database.executemany("INSERT OR REPLACE INTO exchange VALUES (?, ?)", exchanges)
                database.execute(_FORGET, over)
                database.execute("COMMIT")

    def publish(self, message: Message) -> None:
        """Add the message to the transaction, unless its id is there or was forwarded already."""
        exchange, routing_key, body, properties, generation = message
        others = properties.copy()
        message_id = others.pop("message_id")
        if "headers" in others:
            text = json.dumps(typed_json.dump(others))
        elif others == self._plain:  # they seldom change from message to message
            text = self._plain_json
        else:
            self._plain, self._plain_json = others, json.dumps(others)
            text = self._plain_json
        row = (message_id, self._owner, generation, exchange, routing_key, text, time.time(), body)
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
        """Find out whether it could be written to; where there is no file yet, none is made."""
        if self.path.exists():
            with self._transaction():
                return
        place = next(each for each in self.path.parents if each.exists())
        if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
            raise PublishError(f"{self.where} cannot be made: {place} may not be written to")

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

    # For people

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
        if not self.path.exists():
            return 0, 0
        with self._reading() as database:
            count, size = database.execute("SELECT count(*), total(length(body)) FROM message").fetchone()
        return count, int(size)

    @staticmethod
    def refusal(refused: Sequence[Undelivered], broker: Output) -> PublishError:
        """The error that tells what a broker has refused."""
        return PublishError(
            f"{broker.where} refuses what was set apart in the spool",
            refused,
            "nothing is lost: it is tried again at each forward, and holds up nothing else. Mend the broker "
            "(bind a queue, raise its limits), or give a message up with `spool drop ID`",
        )

    def drop(self, spooled: Spooled) -> None:
        """Take a message out for good, and remember its id, as if it were forwarded."""
        with self._transaction() as database:
            _drop(database, [spooled])

    # Forwarding

    def forward(self, output: Output) -> Forwarded:
        """Send the messages to `output`, oldest first, and drop those that have arrived.

        What the broker refuses is set apart, and tried again at the end of each later forward.

        Raises:
            BusyError: another process is forwarding this spool, or writing to it.
            PublishError: the broker cannot be reached, or was lost; what it has taken by then is dropped.
        """
        if not self.path.exists():
            return Forwarded(0, [])
        with self._errors():
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            lock = os.open(self.path.with_name(self.path.name + ".lock"), flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self._forward(output)
        except BlockingIOError:
            raise BusyError(f"{self.where} is being forwarded by another process; nothing was sent") from None
        except PublishError as exc:
            # What follows from it for a run does not follow here.
            raise PublishError(
                exc.what, exc.undelivered, f"what was not taken stays in {self.where}"
            ) from exc
        finally:
            os.close(lock)

    def _forward(self, output: Output) -> Forwarded:
        waiting, _ = self.summary()
        if not waiting:
            return Forwarded(0, [])
        try:
            self._connect_to(output)
            for refused_before in (False, True):
                after = 0
                while batch := self._batch(after, refused_before):
                    after = batch[-1].number
                    unfit = [(problem, each.number) for each in batch if (problem := _problem(each.message))]
                    self._set_apart(unfit)
                    self._send([each for each in batch if not _problem(each.message)], output)
            output.close()
        except BaseException:
            output.abort()
            raise
        refused = [
            Undelivered(each.message.routing_key, each.message_id, each.size, each.refused, True)
            for each in self.messages()
            if each.refused is not None
        ]
        return Forwarded(waiting - self.summary()[0], refused)

    def _connect_to(self, output: Output) -> None:
        with self._reading() as database:
            exchanges = [Exchange(*row) for row in database.execute(_EXCHANGES)]
        output.open(exchanges, "", ())

    def _send(self, batch: Sequence[Spooled], output: Output) -> None:
        """Send the messages and drop them; what is refused is found out, by halves, and set apart."""
        published: list[Spooled] = []
        try:
            with self._transaction() as database:
                _drop(database, batch)  # first, since what cannot be dropped would be sent again
                for each in batch:
                    published.append(each)
                    output.publish(each.message)
                output.flush()
        except PublishError as exc:
            found = {each.message_id: each for each in exc.undelivered}
            if not found:
                raise
            refused = [
                each for each in published if each.message_id in found and found[each.message_id].refused
            ]
            in_doubt = [each for each in published if each.message_id in found and each not in refused]
            with self._transaction() as database:
                _drop(database, [each for each in published if each.message_id not in found])
            self._set_apart([(found[each.message_id].reason, each.number) for each in refused])
            if not refused and all(each.refused is False for each in exc.undelivered):
                raise
            output.abort()
            self._connect_to(output)
            # Was one of those that are left refused? Halves find it out.
            left = in_doubt + list(batch[len(published) :])
            middle = (len(left) + 1) // 2
            for part in filter(None, (left[:middle], left[middle:])):
                self._send(part, output)

    def _set_apart(self, reasons: list[tuple[str, int]]) -> None:
        with self._transaction() as database:
            database.executemany("UPDATE message SET refused = ? WHERE number = ?", reasons)

    def _batch(self, after: int, refused_before: bool) -> list[Spooled]:
        batch: list[Spooled] = []
        size = 0
        for spooled in self._select(_TO_FORWARD, after, refused_before, FORWARD_MESSAGES):
            size += spooled.size
            if batch and size > FORWARD_BYTES:
                break
            batch.append(spooled)
        return batch

    def _select(self, query: str, *parameters: Any) -> list[Spooled]:
        if not self.path.exists():
            return []
        with self._reading() as database:
            return [_spooled(*row) for row in database.execute(query, parameters)]

    # The file

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            database = self._connect()
            try:
                yield database
            finally:
                database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as exc:
                if _code(exc) == sqlite3.SQLITE_BUSY:
                    raise BusyError(
                        f"a run is writing to {self.where}; nothing was sent; try again later"
                    ) from exc
                raise
            yield database
            database.execute("COMMIT")

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise PublishError(f"{self.where} is not open, or an earlier error has closed it")
        return self._database

    def _connect(self, *, create: bool = False) -> sqlite3.Connection:
        place = self.path if self.path.exists() else self.path.parent
        if os.geteuid() == 0 and place.stat().st_uid:
            raise PublishError(
                f"{place} belongs to the user with the id {place.stat().st_uid}, whom root would lock out of "
                "files that it makes there; nothing was done; run this as that user"
            )
        if create:
            # SQLite would make it readable for others.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            database.execute("PRAGMA synchronous = EXTRA")
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
        except OSError as exc:
            raise PublishError(f"{self.where} cannot be used: {exc.strerror}; nothing was published") from exc
        except sqlite3.Error as exc:
            # To list every message of a large run would be to keep it in memory.
            rolled_back = (
                f"all {self._uncommitted:,} messages that this run has published since its last save are "
                "rolled back (only the last of them are listed), and "
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
                return f"is locked by another process for more than {BUSY_SECONDS:.0f} s; try again later"
            case sqlite3.SQLITE_FULL:
                return (
                    f"is full: it may have {self._max_mib} MiB (spool_max_mib), or the disk has no space "
                    "left (a forward needs some, too); make room, or forward it (`spool forward`)"
                )
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return f"is damaged or not a spool ({exc}); move it away (sqlite3 has `.recover`)"
        return f"failed: {exc}"


def _spooled(
    number: int, spooled: float, size: int, refused: str | None, message_id: str, *message: Any
) -> Spooled:
    generation, exchange, routing_key, properties, body = message
    loaded = {"message_id": message_id, **typed_json.load(json.loads(properties))}
    return Spooled(number, spooled, size, refused, Message(exchange, routing_key, body, loaded, generation))


def _problem(message: Message) -> str:
    """Why AMQP cannot hold a message that an older version has spooled; empty if it can."""
    try:
        check(message)
    except CollectorError as exc:
        return str(exc)
    return ""


def _drop(database: sqlite3.Connection, batch: Sequence[Spooled]) -> None:
    numbers = [(spooled.number,) for spooled in batch]
    database.executemany(_REMEMBER, numbers)
    database.executemany("DELETE FROM message WHERE number = ?", numbers)


def _pragma(database: sqlite3.Connection, name: str) -> int:
    (value,) = database.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _code(exc: sqlite3.Error) -> int:
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF
