"""The journal as a file: what SQLite says differently, the lock beside the file, and whose file it is.

In rollback-journal mode it is a single file while nobody writes, and `synchronous = EXTRA` makes a commit
survive a power cut (https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sqlite3
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from n6_stateful.errors import StateError

APPLICATION_ID = 0x6E364A4E  # "n6JN", in the header of the file
# Without the last one, some systems' SQLite overwrites what is deleted, and needs as much room for that.
NEW_FILE = ("page_size=16384", "auto_vacuum=INCREMENTAL")  # later, the second one would write each time
PRAGMAS = ("synchronous=EXTRA", "secure_delete=OFF")
FREE_PAGES = 64  # that many may stay free, 1 MiB

_DAMAGED = "the next run moves it aside and goes on from the state file"
_ADVICE = {
    sqlite3.SQLITE_FULL: "make room on its disk, then run again",
    sqlite3.SQLITE_BUSY: "another process goes on writing to it: try again later",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}


class SQLite:
    """The file at `path`, for which `timeout` seconds are waited while others write to it.

    `n6_stateful.databases.PostgreSQL` has the same methods and attributes.

    Attributes:
        where: for people.
        key: what the rows are called; a file may be renamed, so it is always the same.
        largest: how many bytes a row may have; `limit` says why.
        errors: what the driver raises.
    """

    key = ""
    begin = "BEGIN IMMEDIATE"
    or_ignore = "ON CONFLICT DO NOTHING"
    types = {
        "first": f"PRAGMA application_id = {APPLICATION_ID};",
        "serial": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "blob": "BLOB",
        "text": "TEXT",
        "options": "",
    }
    errors = (sqlite3.Error, OSError, ValueError, TypeError)  # the last two of a damaged row
    largest = 999_000_000
    limit = "1 GB is SQLite's limit"

    def __init__(self, path: Path, timeout: float) -> None:
        self.path, self.where = path, str(path)
        self._timeout = timeout
        self._connection: sqlite3.Connection | None = None
        self._lock_path = path.with_suffix(".lock")
        self._lock: int | None = None

    # File

    def exists(self) -> bool:
        """Whether there is a file."""
        return self.path.exists()

    def prepare(self) -> None:
        """Make the directory and the file, for this user alone."""
        make_private_directory(self.path.parent)
        check_owner(self.path.parent)
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            check_owner(self.path.parent)
            check_owner(self.path)
            # Not read-only: what a killed run has left must be rolled back.
            uri = f"file:{quote(str(self.path))}?mode=rw"
            database = sqlite3.connect(uri, uri=True, timeout=self._timeout, isolation_level=None)
            try:
                for pragma in PRAGMAS if self.path.stat().st_size else (*NEW_FILE, *PRAGMAS):
                    database.execute(f"PRAGMA {pragma}")
            except BaseException:
                database.close()
                raise
            self._connection = database
        return self._connection

    def close(self) -> None:
        """End the session; what is not committed is rolled back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def shrink(self) -> None:
        """Give the disk back what is free in the file, if that is much."""
        with suppress(sqlite3.Error):
            ((free,),) = self.execute("PRAGMA freelist_count")
            if free > FREE_PAGES:
                self._connected().executescript("PRAGMA incremental_vacuum")  # `execute` would free one page

    # Statements

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Execute a statement."""
        return self._connected().execute(sql, values)

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement for each of the rows."""
        self._connected().executemany(sql, rows)

    def roll_back(self) -> None:
        """Roll back, if SQLite has not done so already."""
        with suppress(sqlite3.Error):
            self.execute("ROLLBACK")

    def is_no_table(self, exc: Exception) -> bool:
        """Whether the error says that the tables were never made."""
        return isinstance(exc, sqlite3.OperationalError) and str(exc).startswith("no such table")

    def is_corrupt(self, exc: Exception) -> bool:
        """Whether the error says that the file is corrupt."""
        return _code(exc) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

    def is_lost(self) -> bool:
        """Whether the session went away."""
        return False

    def explain(self, exc: Exception) -> tuple[str, str]:
        """What happened, and what to do."""
        happened = f"{exc.strerror} ({exc.filename})" if isinstance(exc, OSError) else str(exc)
        if isinstance(exc, ValueError | TypeError):
            return f"a row in it is damaged ({exc})", "move the file away to go on from the state file"
        return happened, _ADVICE.get(
            _code(exc), "see that its disk works, and run as the user whose file it is"
        )

    # Lock

    def try_lock(self) -> bool:
        """Take the lock, if nobody has it; the kernel gives it back when this process ends."""
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(3):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._lock = lock
                with suppress(OSError):  # a full disk
                    os.ftruncate(lock, 0)
                    os.write(lock, json.dumps([socket.gethostname(), os.getpid(), utc()]).encode())
                return True
            time.sleep(0.01)  # whoever asks for the holder has it for an instant
        os.close(lock)
        return False

    def unlock(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def holder(self) -> tuple[str, int, str] | None:
        """Host, process and beginning of the run that has the lock."""
        with suppress(FileNotFoundError), self._lock_path.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                with suppress(ValueError):  # it is just being written
                    host, pid, since = json.load(lock)
                    return host, pid, since
                return "an unknown process", 0, ""
        return None


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
    """Make the directory and those above it that are missing, durably and for this user alone.

    Raises:
        StateError: root would make it in the directory of another user, who could not use it.
    """
    if directory.is_dir():
        return
    make_private_directory(directory.parent)
    owner = directory.parent.stat().st_uid
    if owner and os.geteuid() == 0:
        raise StateError(f"{directory.parent}: belongs to another user; nothing was done; run as uid {owner}")
    directory.mkdir(0o700, exist_ok=True)
    with suppress(PermissionError):  # it may be closed to us but for passing through
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make durable which files there are in a directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _code(exc: Exception) -> int:
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF
