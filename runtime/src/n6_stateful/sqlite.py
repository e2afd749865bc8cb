"""The session of a journal: its connection, its transactions and its lock, here those of a file.

In rollback-journal mode SQLite keeps a single file while nobody writes, and `synchronous = EXTRA` makes a
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
# Without the last one, some systems' SQLite overwrites what is deleted, and needs as much room for that.
NEW_FILE = ("page_size=16384", "auto_vacuum=INCREMENTAL")  # later, the second one would write each time
PRAGMAS = ("synchronous=EXTRA", "secure_delete=OFF")
FREE_PAGES = 64  # that many may stay free, 1 MiB
UNKNOWN = "all of it was saved or nothing, which is not known; the next run finds out"


class CorruptError(StateError):
    """SQLite says that the file is corrupt, or no database."""


class Holder(NamedTuple):
    """Who has the lock; what is not known is empty or 0."""

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}" if self.pid else self.host


class SQLite:
    """A journal's session in a file; `n6_stateful.databases` overrides what servers do differently.

    A connection is made for the first statement. Between the methods of a journal no transaction is open.
    """

    is_file = True
    begin = "BEGIN IMMEDIATE"
    or_ignore = "ON CONFLICT DO NOTHING"
    # In the statements that make the tables, and before them.
    serial, blob, text, suffix = "INTEGER PRIMARY KEY AUTOINCREMENT", "BLOB", "TEXT", ""
    before_tables = f"PRAGMA application_id = {APPLICATION_ID}"
    largest, limit = 500_000_000, "what a database takes"  # bytes of a row
    errors: tuple[type[Exception], ...] = (sqlite3.Error, OSError)
    advice = "see that its disk works and has room, run as the user whose file it is, and try again later"

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        self.name, self.path, self.where = path.name.removesuffix(".sqlite"), path, str(path)
        self.is_locked = False
        self.id = ""  # of the journal; empty until its head is loaded
        self._key = ""  # what its rows are called: not `name`, since a file may be renamed
        self._timeout = options["timeout"]
        self._connection: Any = None
        self._lock_path, self._lock = path.with_suffix(".lock"), -1  # a descriptor
        self._writes = self._has_no_tables = False
        self._ended: StateError | None = None  # why nothing more can be committed

    # What a server does differently

    def _connect(self) -> Any:
        if self._writes:
            make_private_directory(self.path.parent)
        check_owner(self.path.parent)
        if self._writes and not self.path.exists():
            self.path.touch(0o600)
        check_owner(self.path)
        # Not read-only: what a killed run has left must be rolled back.
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
        """Give the disk back what is free in the file, if that is much."""
        with suppress(sqlite3.Error):
            if self._execute("PRAGMA freelist_count").fetchone()[0] > FREE_PAGES:
                self._connection.executescript("PRAGMA incremental_vacuum")  # `execute` would free one page

    def _meaning(self, exc: Exception) -> str:
        """What an error means: `missing` tables, a `corrupt` file, a `lost` session; else it is empty."""
        if isinstance(exc, FileNotFoundError) or str(exc).startswith("no such table"):
            return "missing"
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        return "corrupt" if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) else ""

    def _take_lock(self) -> bool:
        """Take the lock, if nobody has it; the kernel gives it back when this process ends."""
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(3):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._lock = lock
                os.write(lock, f"{os.uname().nodename} {os.getpid()} {utc()}".ljust(200).encode())
                return True
            time.sleep(0.01)  # whoever asks for the holder has it for an instant
        os.close(lock)
        return False

    def holder(self) -> Holder | None:
        """Who has the lock."""
        with self._errors("nothing was done"), suppress(FileNotFoundError), self._lock_path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                # It is empty for the first instant.
                host, pid, since = lock.read().split() or ("an unknown process", 0, "")
                return Holder(host, int(pid), since)
        return None

    # What all do

    def _close(self) -> None:
        """End the session; what is not committed is rolled back."""
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
        """A transaction, and how things stand if it fails."""
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
        """Raise what the driver raises as `StateError`, with how things stand and what to do."""
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
        """Move a corrupt file aside if this object writes, and has or gets the lock; what became of it."""
        if self._writes and not self.is_locked:
            self.is_locked = self._take_lock()
        if not self.is_locked:
            return "the next run moves it aside and goes on from the state file"
        self._close()
        self.id = ""
        aside = f"{self.path}.broken-{utc().replace(':', '')}-{os.urandom(4).hex()}"
        # In this order: without its database, SQLite would delete the second one.
        for end in ("", "-journal"):
            with self._errors("it could not be moved aside"), suppress(FileNotFoundError):
                Path(f"{self.path}{end}").rename(f"{aside}{end}")
        return f"it was moved to {aside}"


def is_of_another_program(path: Path) -> bool:
    """Whether a file is SQLite's, and not a journal; a damaged one may have been a journal."""
    with suppress(OSError), path.open("rb") as file:
        header = file.read(100)
        return header.startswith(b"SQLite format 3") and header[68:72] != APPLICATION_ID.to_bytes(4, "big")
    return False


def utc() -> str:
    """Now, `2026-01-02T03:04:05Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def check_owner(path: Path) -> None:
    """Refuse a file or directory that somebody else could have written.

    Raises:
        StateError: it belongs to another user, or others may write to it.
    """
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise StateError(f"{path}: belongs to another user; nothing was done; run as uid {status.st_uid}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(f"{path}: others may write to it; nothing was done; chmod go-w {path}")


def make_private_directory(directory: Path) -> None:
    """Make the directory if it is missing, for this user alone.

    Raises:
        StateError: root would make it in the directory of another user, who could not use it.
    """
    if not directory.exists():
        above = next(path for path in directory.parents if path.exists())
        owner = above.stat().st_uid
        if owner and os.geteuid() == 0:
            raise StateError(f"{above}: belongs to another user; nothing was done; run as uid {owner}")
        directory.mkdir(0o700, parents=True, exist_ok=True)
