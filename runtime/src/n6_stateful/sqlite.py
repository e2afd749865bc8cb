"""A journal's session (connection, transactions and lock) for a journal in a file.

In rollback-journal mode SQLite keeps a single file while no one writes, and `synchronous = EXTRA` makes a
commit survive a power cut (https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from n6_stateful.errors import StateError

APPLICATION_ID = 0x6E364A4E  # "n6JN", in the header of the file
# Without secure_delete=OFF, some systems' SQLite overwrites deleted data, and needs disk space for it.
NEW_FILE = ("page_size=16384", "auto_vacuum=INCREMENTAL")  # on an existing file the second would always write
PRAGMAS = ("synchronous=EXTRA", "secure_delete=OFF")
FREE_PAGES = 16_384  # 256 MiB; to free what the next run needs again would take it half a second
UNKNOWN = "either all of it was saved or nothing; the next run finds out which"


class CorruptError(StateError):
    """SQLite reports that the file is corrupt or not a database."""


class Holder(NamedTuple):
    """The holder of the lock; unknown fields are empty or 0."""

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}" if self.pid else self.host


class SQLite:
    """A journal's session with a file; `n6_stateful.databases` overrides what differs on servers.

    The first statement connects. No transaction is open between calls of a journal's methods.
    """

    is_file = True
    begin = "BEGIN IMMEDIATE"
    or_ignore = "ON CONFLICT DO NOTHING"
    # For the statements that create the tables, and before them.
    serial, blob, text, suffix = "INTEGER PRIMARY KEY AUTOINCREMENT", "BLOB", "TEXT", ""
    before_tables = f"PRAGMA application_id = {APPLICATION_ID}"
    largest, limit = 500_000_000, "what a database takes"  # bytes of a row
    errors: tuple[type[Exception], ...] = (sqlite3.Error, OSError)
    advice = "make sure that its disk works and has space, run as the owner of the file, and try again later"

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        self.name, self.path, self.where = path.name.removesuffix(".sqlite"), path, str(path)
        self.is_locked = False
        self.id = ""  # of the journal; empty until its head is loaded
        self._key = ""  # the name in its rows: empty, not `name`, since a file may be renamed
        self._timeout = options["timeout"]
        self._connection: Any = None
        self._lock_path, self._lock = path.with_suffix(".lock"), -1  # a descriptor
        self._writes = self._has_no_tables = False
        self._ended: StateError | None = None  # why nothing more can be committed

    # Overridden for servers

    def _connect(self) -> Any:
        if self._writes:
            make_private_directory(self.path.parent)
        check_owner(self.path.parent)
        if self._writes and not self.path.exists():
            self.path.touch(0o600)
        check_owner(self.path)
        # Not read-only: the transaction of a killed run must be rolled back.
        database = sqlite3.connect(self.path, timeout=self._timeout, isolation_level=None)
        try:
            for pragma in PRAGMAS if self.path.stat().st_size else (*NEW_FILE, *PRAGMAS):
                database.execute(f"PRAGMA {pragma}")
        except BaseException:
            database.close()
            raise
        return database

    def _execute(self, sql: str, *values: Any) -> Any:
        self._connection = self._connection or self._connect()
        return self._connection.execute(sql, values)

    def _execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(sql, rows)

    def _shrink(self) -> None:
        """Release free space in the file, if there is much."""
        with suppress(sqlite3.Error):
            if self._execute("PRAGMA freelist_count").fetchone()[0] > FREE_PAGES:
                self._connection.executescript("PRAGMA incremental_vacuum")  # `execute` would free one page

    def _meaning(self, exc: Exception) -> str:
        """Classify an error: `missing` tables, a `corrupt` file, a `lost` session, or an empty string."""
        if isinstance(exc, FileNotFoundError) or str(exc).startswith("no such table"):
            return "missing"
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        return "corrupt" if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) else ""

    def _take_lock(self) -> bool:
        """Take the lock if it is free; the kernel releases it when this process ends."""
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(3):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._lock = lock
                os.write(lock, f"{os.uname().nodename} {os.getpid()} {utc()}".ljust(200).encode())
                return True
            time.sleep(0.01)  # `holder` takes it for an instant
        os.close(lock)
        return False

    def holder(self) -> Holder | None:
        """The holder of the lock."""
        with self._errors("nothing was done"), suppress(FileNotFoundError), self._lock_path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                # It is empty for the first instant.
                host, pid, since = lock.read().split() or ("an unknown process", 0, "")
                return Holder(host, int(pid), since)
        return None

    # For all engines

    def _close(self) -> None:
        """End the session; an open transaction is rolled back."""
        with suppress(AttributeError, *self.errors):  # there may be no connection
            self._connection.close()
        self._connection = None

    def _select(self, sql: str, *values: Any) -> list[Any]:
        """The rows; none where there is no journal yet."""
        with self._errors("it cannot be read"):
            try:
                return list(self._execute(sql, *values).fetchall())
            except self.errors as exc:
                self._has_no_tables = self._meaning(exc) == "missing"
                if not self._has_no_tables:
                    raise
                return []

    @contextmanager
    def _transaction(self, outcome: str, end: str = "COMMIT") -> Iterator[None]:
        """A transaction; `outcome` is for the error: what state things are in if it fails."""
        with self._errors(outcome):
            self._execute(self.begin)
            try:
                yield
                with self._errors(outcome, if_lost=UNKNOWN):
                    self._execute(end)
            except BaseException:
                with suppress(AttributeError, *self.errors):  # there may be no connection any more
                    self._connection.rollback()
                raise

    @contextmanager
    def _errors(self, outcome: str, if_lost: str = "") -> Iterator[None]:
        """Turn the driver's errors into `StateError`, with what state things are in and what to do."""
        try:
            yield
        except self.errors as exc:
            meaning = self._meaning(exc)
            happened = " ".join(str(exc.args[-1] if exc.args else exc).split())
            stands = if_lost if if_lost and meaning == "lost" else outcome
            advice = self._moved_aside() if meaning == "corrupt" else self.advice
            kind = CorruptError if meaning == "corrupt" else StateError
            error = kind(f"{self.where}: {happened}; {stands}; {advice}")
            if self.is_locked and meaning in ("corrupt", "lost"):
                self._ended = self._ended or error
            elif meaning == "lost":
                self._close()  # the next statement begins another session
            raise error from exc

    def _moved_aside(self) -> str:
        """Move a corrupt file aside if this object writes and has or gets the lock; return the outcome."""
        if self._writes and not self.is_locked:
            self.is_locked = self._take_lock()
        if not self.is_locked:
            return "the next run moves it aside and goes on from the state file"
        self._close()
        self.id = ""
        aside = f"{self.path}.broken-{utc().replace(':', '')}-{os.urandom(4).hex()}"
        # In this order: SQLite deletes a -journal file without its database.
        for end in ("", "-journal"):
            with self._errors("it could not be moved aside"), suppress(FileNotFoundError):
                Path(f"{self.path}{end}").rename(f"{aside}{end}")
        return f"it was moved to {aside}"


def is_of_another_program(path: Path) -> bool:
    """Whether a file is an SQLite database of another program; a damaged file may be a journal."""
    with suppress(OSError), path.open("rb") as file:
        header = file.read(100)
        return header.startswith(b"SQLite format 3") and header[68:72] != APPLICATION_ID.to_bytes(4, "big")
    return False


def utc() -> str:
    """The current time, `2026-01-02T03:04:05Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def check_owner(path: Path) -> None:
    """Refuse a file or directory that another user could have written.

    Raises:
        StateError: it belongs to another user, or others may write to it.
    """
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise StateError(f"{path}: belongs to another user; nothing was done; run as uid {status.st_uid}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(f"{path}: others may write to it; nothing was done; chmod go-w {path}")


def make_private_directory(directory: Path) -> None:
    """Create the directory if it is missing, accessible to this user only.

    Raises:
        StateError: root would create it in another user's directory, who then could not use it.
    """
    if not directory.exists():
        above = next(path for path in directory.parents if path.exists())
        owner = above.stat().st_uid
        if owner and os.geteuid() == 0:
            raise StateError(f"{above}: belongs to another user; nothing was done; run as uid {owner}")
        directory.mkdir(0o700, parents=True, exist_ok=True)
