"""The spool: messages in one SQLite file on this machine, until they are forwarded.

What a run publishes between two saves of its state is one transaction: it appears all together or not at
all. A message id is there once, so a run that is repeated adds nothing twice; the ids of messages that were
forwarded are remembered as long as such a run may still come.

The journal is SQLite's rollback journal, not a WAL: the spool then is a single file while nobody writes, and
`synchronous = EXTRA` makes a commit survive a power cut (https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from n6_stateful.errors import BusyError, CollectorError, PublishError
from n6_stateful.message import Exchange, Message, Undelivered

if TYPE_CHECKING:
    from n6_stateful.output.base import Output


APPLICATION_ID = 0x6E365350  # "n6SP"
VERSION = 1
BUSY_SECONDS = 30.0
ROWS_AT_ONCE = 500
BYTES_AT_ONCE = 4 << 20
FORWARD_MESSAGES = 1000
FORWARD_BYTES = 16 << 20

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
) WITHOUT ROWID;
"""
# Not OR IGNORE, which would ignore a message that lacks a value, too.
_INSERT = """
INSERT INTO message
    (message_id, owner, generation, exchange, routing_key, properties, spooled, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (message_id) DO NOTHING
"""
_INSERT_UNLESS_FORWARDED = """
INSERT INTO message
    (message_id, owner, generation, exchange, routing_key, properties, spooled, body)
SELECT * FROM (SELECT ? AS message_id, ?, ?, ?, ?, ?, ?, ?) AS new
WHERE NOT EXISTS (SELECT 1 FROM forwarded WHERE forwarded.message_id = new.message_id)
ON CONFLICT (message_id) DO NOTHING
"""
_WAITING = """
SELECT number, spooled, length(body), message_id, generation, exchange, routing_key, properties, {body}
FROM message {which}
"""
_OLDEST = _WAITING.format(body="body", which="ORDER BY number LIMIT ?")
_OLDEST_WITHOUT_BODIES = _WAITING.format(body="x''", which="ORDER BY number LIMIT ?")
_WITH_ID = _WAITING.format(
    body="body", which="WHERE length(?1) AND substr(message_id, 1, length(?1)) = ?1 LIMIT 2"
)
_SOME_ARE_OVER = """
SELECT 1 FROM forwarded
WHERE owner = ? AND generation NOT IN (SELECT value FROM json_each(?)) LIMIT 1
"""
_FORGET = "DELETE FROM forwarded WHERE owner = ? AND generation NOT IN (SELECT value FROM json_each(?))"


class Spooled(NamedTuple):
    """A message that waits."""

    number: int
    spooled: float
    size: int
    message: Message


class Spool:
    """The spool at `path`, an `Output`.

    Args:
        path: the file; it and its directory are made if need be.
        max_mib: its largest size, MiB; a message that does not fit is an error, none is ever dropped.
    """

    def __init__(self, path: Path, max_mib: int = 4096) -> None:
        self.path = path
        self.where = f"the spool {path}"
        self._max_mib = max_mib
        self.problem: str | None = None
        self._database: sqlite3.Connection | None = None
        self._owner = ""
        self._insert = _INSERT
        self._rows: list[tuple[Any, ...]] = []
        self._rows_bytes = 0
        self._uncommitted = 0  # messages
        self._properties: dict[str, Any] = {}
        self._properties_json = "{}"

    # Output

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        """Open the file, make it if need be, and forget what needs to be remembered no longer."""
        self._owner = owner
        with self._telling():
            self._database = database = self._connect()
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
        if others != self._properties:  # they seldom change from message to message
            self._properties_json = _json(others)
            self._properties = others
        self._rows.append(
            (
                message_id,
                self._owner,
                generation,
                exchange,
                routing_key,
                self._properties_json,
                time.time(),
                body,
            )
        )
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
        """Open the file, and close it."""
        try:
            self.open(exchanges, "check", ())
            self.close()
        except BaseException:
            self.abort()
            raise

    def _write(self) -> None:
        """Add the rows to the transaction."""
        database = self._opened()
        if not self._rows:
            return
        with self._writing():
            if not database.in_transaction:
                database.execute("BEGIN IMMEDIATE")
                # From here on nobody else can forward, so this holds until the commit.
                forwarded = database.execute("SELECT 1 FROM forwarded LIMIT 1").fetchone()
                self._insert = _INSERT_UNLESS_FORWARDED if forwarded else _INSERT
            database.executemany(self._insert, self._rows)
        self._rows.clear()
        self._rows_bytes = 0

    # For people, and for forwarding

    def messages(self, limit: int | None = None, *, bodies: bool = True) -> Iterator[Spooled]:
        """The messages that wait, oldest first.

        Args:
            limit: at most so many.
            bodies: whether to read the bodies, too.
        """
        yield from self._select(_OLDEST if bodies else _OLDEST_WITHOUT_BODIES, limit or -1)

    def message(self, message_id: str) -> Spooled | None:
        """The message with that id, or whose id alone begins so."""
        found = list(self._select(_WITH_ID, message_id))
        return found[0] if len(found) == 1 else None

    def summary(self) -> tuple[int, int]:
        """How many messages wait, and how many bytes their bodies have."""
        if not self.path.exists():
            return 0, 0
        with self._reading() as database, self._telling():
            count, size = database.execute("SELECT count(*), total(length(body)) FROM message").fetchone()
        return count, int(size)

    def forward(self, output: Output) -> int:
        """Send the messages to `output`, oldest first, and drop those that have arrived.

        Returns:
            How many were sent.

        Raises:
            BusyError: another process is forwarding this spool.
            PublishError: the output did not take them all; those that it took are dropped.
        """
        import fcntl

        if not self.path.exists():
            return 0
        lock_path = self.path.with_name(self.path.name + ".lock")
        with self._telling():
            lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(
                    f"{self.where} is being forwarded by another process; nothing was sent"
                ) from None
            return self._forward(output)
        except PublishError as exc:
            # What follows from it for a run does not follow here.
            kept = f"what was not taken stays in {self.where}"
            raise PublishError(exc.what, exc.undelivered, kept) from exc
        finally:
            os.close(lock)

    def drop(self, batch: Sequence[Spooled]) -> None:
        """Take messages out, and remember their ids, as if they were forwarded."""
        with self._reading() as database, self._telling():
            database.execute("BEGIN IMMEDIATE")
            numbers = [(spooled.number,) for spooled in batch]
            database.executemany(
                "INSERT OR IGNORE INTO forwarded "
                "SELECT message_id, owner, generation FROM message WHERE number = ?",
                numbers,
            )
            database.executemany("DELETE FROM message WHERE number = ?", numbers)
            database.execute("COMMIT")

    def _forward(self, output: Output) -> int:
        if not self.summary()[0]:
            return 0
        with self._reading() as database, self._telling():
            exchanges = [Exchange(*row) for row in database.execute("SELECT name, type FROM exchange")]
        sent = 0
        try:
            output.open(exchanges, "", ())
            while batch := self._batch():
                self._send(batch, output)
                sent += len(batch)
            output.close()
        except BaseException:
            output.abort()
            raise
        return sent

    def _send(self, batch: Sequence[Spooled], output: Output) -> None:
        published: list[Spooled] = []
        unfit: list[Undelivered] = []
        try:
            for spooled in batch:
                published.append(spooled)
                try:
                    output.publish(spooled.message)
                except CollectorError as exc:
                    published.pop()
                    message = spooled.message
                    message_id = message.properties["message_id"]
                    unfit.append(Undelivered(message.routing_key, message_id, spooled.size, str(exc)))
            output.flush()
        except PublishError as exc:
            # One message that the broker does not take must not make the others go again at each forward.
            left = {each.message_id for each in exc.undelivered}
            if left:
                self.drop([each for each in published if each.message.properties["message_id"] not in left])
            raise
        self.drop(published)
        if unfit:
            raise PublishError(f"{output.where}: not every message can be sent there", unfit)

    def _batch(self) -> list[Spooled]:
        batch: list[Spooled] = []
        size = 0
        for spooled in self.messages(FORWARD_MESSAGES):
            size += spooled.size
            if batch and size > FORWARD_BYTES:
                break
            batch.append(spooled)
        return batch

    def _select(self, query: str, parameter: Any) -> Iterator[Spooled]:
        if not self.path.exists():
            return
        with self._reading() as database, self._telling():
            for row in database.execute(query, (parameter,)):
                number, spooled, size, message_id, generation, exchange, routing_key, properties, body = row
                message = Message(
                    exchange,
                    routing_key,
                    body,
                    {"message_id": message_id, **json.loads(properties)},
                    generation,
                )
                yield Spooled(number, spooled, size, message)

    # The file

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._telling():
            database = self._connect()
        try:
            yield database
        finally:
            database.close()

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise PublishError(f"{self.where} is not open, or an earlier error has closed it")
        return self._database

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(0o700, parents=True, exist_ok=True)
        # SQLite would make it readable for others.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA synchronous = EXTRA")
        if self._is_empty(database):
            database.execute("BEGIN EXCLUSIVE")
            if self._is_empty(database):  # nobody was faster
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {VERSION}")
            database.execute("COMMIT")
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise PublishError(f"{self.path} is an SQLite file, but no spool; nothing was published")
        if version != VERSION:
            raise PublishError(
                f"{self.where} was written by a newer n6-stateful-runtime (format {version}, this one knows "
                f"{VERSION}); nothing was published; upgrade the runtime"
            )

    @staticmethod
    def _is_empty(database: sqlite3.Connection) -> bool:
        return not database.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._telling():
                yield
        except PublishError:
            # SQLite may have rolled back by itself: no later commit must pass for the whole.
            self.abort()
            raise

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise PublishError(f"{self.where} cannot be used: {exc.strerror}; nothing was published") from exc
        except sqlite3.DataError as exc:
            raise self._error(f"does not take so large a message ({exc})") from exc
        except sqlite3.Error as exc:
            raise self._error(self._reason(exc)) from exc

    def _reason(self, exc: sqlite3.Error) -> str:
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            return f"is locked by another process for more than {BUSY_SECONDS:.0f} s; try again later"
        if code == sqlite3.SQLITE_FULL:
            return (
                f"is full: it may have {self._max_mib} MiB (spool_max_mib), or the disk has no space left; "
                "forward it (`spool forward`), or make room"
            )
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return f"is damaged or no spool ({exc}); move it away, and look at it with sqlite3's `.recover`"
        return f"failed: {exc}"

    def _error(self, reason: str) -> PublishError:
        # To list every message of a large run would be to keep it in memory.
        rolled_back = (
            f"all {self._uncommitted:,} messages that this run has published since its last save are rolled "
            "back (only the last of them are listed), and "
        )
        return PublishError(
            f"{self.where} {reason}",
            [Undelivered(row[4], row[0], len(row[7]), "not spooled") for row in self._rows],
            (rolled_back if self._uncommitted else "") + "the state stays as it was",
        )


def _json(properties: dict[str, Any]) -> str:
    try:
        return json.dumps(properties)
    except TypeError as exc:
        raise CollectorError(
            f"the message's properties cannot be kept in a spool: {exc}; nothing was published"
        ) from exc
