"""A journal's session: its tables and its head, its lock, and its transactions.

`n6_stateful.journal` says what all this is for; what the engines say differently is in `n6_stateful.sqlite`
and `n6_stateful.databases`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from n6_stateful.errors import StateError, StateLockedError
from n6_stateful.sqlite import SQLite, sync_directory

if TYPE_CHECKING:
    from n6_stateful.databases import PostgreSQL

NOTHING = "nothing was saved or published"

# Large columns are the last ones: SQLite reads a row from its beginning. n6_collector is the last table: if
# it is there, so are the others, though MariaDB makes each in a transaction of its own.
TABLES = """{first}
CREATE TABLE IF NOT EXISTS n6_state (
    name VARCHAR(255), number BIGINT, run VARCHAR(32) NOT NULL, saved VARCHAR(20) NOT NULL,
    sha256 VARCHAR(64) NOT NULL, pickle {blob} NOT NULL, PRIMARY KEY (name, number)){options};
CREATE TABLE IF NOT EXISTS n6_outbox (
    id {serial}, name VARCHAR(255) NOT NULL, message_id VARCHAR(255) NOT NULL, exchange VARCHAR(255) NOT NULL,
    routing_key VARCHAR(255) NOT NULL, properties {text} NOT NULL, queued DOUBLE PRECISION NOT NULL,
    refused {text}, size BIGINT NOT NULL, body {blob} NOT NULL){options};
CREATE INDEX IF NOT EXISTS n6_outbox_name ON n6_outbox (name, id);
CREATE TABLE IF NOT EXISTS n6_run (
    name VARCHAR(255), started DOUBLE PRECISION, record {text} NOT NULL,
    PRIMARY KEY (name, started)){options};
CREATE TABLE IF NOT EXISTS n6_collector (
    name VARCHAR(255) PRIMARY KEY, id VARCHAR(32) NOT NULL, newest BIGINT NOT NULL, filed BIGINT NOT NULL,
    url VARCHAR(255) NOT NULL){options}
"""
TABLE_NAMES = ("n6_collector", "n6_state", "n6_outbox", "n6_run")


class CorruptError(StateError):
    """SQLite says that the file is corrupt, or no database."""


class Holder(NamedTuple):
    """Who has the lock; what is not known is empty or 0."""

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        process = f"process {self.pid} on {self.host}" if self.pid else self.host
        return process + (f", since {self.since}" if self.since else "")


def schema(engine: str) -> str:
    """The SQL that makes the tables in `postgresql` or `mysql`, and lets a user use them.

    Raises:
        ConfigError: there is no such engine.
    """
    from n6_stateful.databases import engine_class

    types, user = engine_class(engine).types, engine_class(engine).user
    tables = TABLES.format(**{**types, "first": ""}).strip()
    grants = [f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {user};\n" for table in TABLE_NAMES]
    return f"{tables};\n{''.join(grants)}"


class JournalSession:
    """What a journal is before its contents: see `n6_stateful.journal.Journal`."""

    def __init__(self, engine: SQLite | PostgreSQL, path: Path) -> None:
        self.name, self.path, self.where = path.name.removesuffix(".sqlite"), path, engine.where
        self.is_file = isinstance(engine, SQLite)
        self.is_locked = False
        self.id = self.url = ""
        self.newest = self.filed = 0
        self._engine = engine
        self._key = engine.key
        self._is_open = self._has_tables = self._is_committing = False
        self._ended: StateError | None = None  # why nothing more can be committed

    def exists(self) -> bool:
        """Load the head; whether there is one. Makes nothing."""
        head = self._select("SELECT id, newest, filed, url FROM n6_collector WHERE name = ?", self._key)
        if head:
            self.id, self.newest, self.filed, self.url = head[0]
        return bool(head)

    def open(self, url: str = "") -> None:
        """Make the journal if it is missing, with that digest of the source's URL, and load its head.

        Does nothing if it is open.
        """
        if self._is_open:
            return
        with self._errors(NOTHING):
            self._engine.prepare()
        if not self.exists():
            tables = "" if self._has_tables else TABLES.format(**self._engine.types)
            with self._transaction(NOTHING):
                for statement in filter(str.strip, tables.split(";")):
                    self._execute(statement)
                head = f"INSERT INTO n6_collector VALUES (?, ?, 0, 0, ?) {self._engine.or_ignore}"  # noqa: S608
                self._execute(head, self._key, os.urandom(16).hex(), url)
            self.exists()
        self._is_open = True

    def lock(self) -> None:
        """Take the lock and `open`, loading the head. Does nothing if the lock is held.

        Raises:
            StateLockedError: another process has it; the text names it.
            CorruptError: the lock is held nevertheless, so that `move_aside` may follow.
        """
        if not self.try_lock():
            holder = self.holder() or "it has just ended"
            raise StateLockedError(
                f"{self.where}: another run is in progress ({holder}); nothing was done; try again later"
            )

    def try_lock(self) -> bool:
        """As `lock`, but return False if another process has the lock."""
        if self.is_locked:
            return True
        with self._errors("nothing was done"):
            self._engine.prepare()
            self.is_locked = self._engine.try_lock()
        if self.is_locked:
            self._is_open = False  # others may have committed since
            try:
                self.open()
            except StateError as exc:
                if not isinstance(exc, CorruptError):
                    self.unlock()
                raise
        return self.is_locked

    def unlock(self) -> None:
        """Close the connection and give the lock back."""
        self._close()
        self._engine.unlock()
        self.is_locked = False
        self._ended = None

    def holder(self) -> Holder | None:
        """Who has the lock."""
        with self._errors("nothing was done"):
            holder = self._engine.holder()
        return Holder(*holder) if holder else None

    def move_aside(self) -> str:
        """Rename the file of a corrupt journal, whose lock is held; the next `open` makes a new one.

        Returns:
            The new name.
        """
        if not self.is_locked:
            raise StateError(f"{self.where}: is not locked by this process; nothing was moved")
        self._close()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = self.path.with_name(f"{self.path.name}.broken-{stamp}-{os.urandom(4).hex()}")
        with self._errors("it could not be moved aside"):
            self.path.rename(aside)
            # Second: without its database, SQLite takes it for a remnant and deletes it.
            with suppress(FileNotFoundError):
                Path(f"{self.path}-journal").rename(f"{aside}-journal")
            sync_directory(self.path.parent)
        return str(aside)

    def set_url(self, digest: str) -> None:
        """Set the digest of the source's URL."""
        with self._transaction("nothing was changed"):
            self._execute("UPDATE n6_collector SET url = ? WHERE name = ?", digest, self._key)
        self.url = digest

    # Statements

    def _execute(self, sql: str, *values: Any) -> Any:
        return self._engine.execute(sql, values)

    def _select(self, sql: str, *values: Any, make: Callable[[Any], Any] = tuple) -> list[Any]:
        """What `make` makes of the rows; none where there is no journal yet."""
        with self._errors("it cannot be read"):
            try:
                self._has_tables = self._engine.exists()
                rows = self._execute(sql, *values).fetchall() if self._has_tables else []
            except self._engine.errors as exc:
                if not self._engine.is_no_table(exc):
                    raise
                self._has_tables, rows = False, []
            return [make(row) for row in rows]

    @contextmanager
    def _transaction(self, outcome: str) -> Iterator[None]:
        """A transaction, and how things stand if it fails."""
        with self._errors(outcome):
            self._execute(self._engine.begin)
            try:
                yield
                self._is_committing = True
                self._execute("COMMIT")
            except BaseException:
                self._engine.roll_back()
                raise
            self._is_committing = False

    @contextmanager
    def _errors(self, outcome: str) -> Iterator[None]:
        """Raise what the engine raises as `StateError`, with how things stand and what to do."""
        try:
            yield
        except self._engine.errors as exc:
            is_lost, is_committing, self._is_committing = self._engine.is_lost(), self._is_committing, False
            if is_lost and is_committing:
                outcome = "all of it was saved or nothing, which is not known; the next run finds out"
            happened, advice = self._engine.explain(exc)
            kind = CorruptError if self._engine.is_corrupt(exc) else StateError
            error = kind(f"{self.where}: {happened}; {outcome}; {advice}")
            if is_lost and self.is_locked:
                self._ended = self._ended or error  # the lock went with the session
            elif is_lost:
                self._close()
            raise error from exc

    def _close(self) -> None:
        self._engine.close()
        self._is_open = False
