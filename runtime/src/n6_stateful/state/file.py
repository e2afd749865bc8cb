"""The file store: one durable, locked, checked file.

What is in it, `n6_stateful.state.format` says. Next to it lie

    <name>.previous   the state before the last run that published something
    <name>.lock       held (flock) by the run that is in progress; says who that is
    <name>.broken-*   files that were found broken, kept for a person to look at
    .<name>.*.tmp     what a killed run has left; swept by the next one
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from n6_stateful.errors import StateError, StateLockedError
from n6_stateful.state.format import LONGEST_FOOTER, inspect, now, read_state, write_state
from n6_stateful.state.store import Generation

_CHUNK = 1 << 20


class FileStore:
    """A `StateStore` of two generations: the file at `path` and the one before it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.previous = path.with_name(path.name + ".previous")
        self._lock_path = path.with_name(path.name + ".lock")
        self._backup = self._temporary("kept")
        self._lock: int | None = None

    @property
    def where(self) -> str:
        """The path."""
        return str(self.path)

    def _temporary(self, name: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{name}.tmp")

    # Lock

    def lock(self) -> None:
        """Make the directory if need be, and take the lock until `unlock()` or the process ends.

        The kernel releases it on any death; a child process that was forked does not.

        Raises:
            StateLockedError: another process holds it.
            StateError: the directory cannot be made or used, or is not safe.
        """
        if self._lock is not None:
            return
        directory = self.path.parent
        with os_errors_as_state_error(f"{directory}: cannot be used"):
            make_private_directories(directory)
            check_safe(directory, directory.stat())
            while self._lock is None:
                self._try_lock()
        with os_errors_as_state_error(f"{directory}: what a killed run has left cannot be swept"):
            self._sweep()

    def _try_lock(self) -> None:
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody may have removed the file in between; then we locked nothing.
            if self._lock_path.exists() and os.path.samestat(os.fstat(lock), self._lock_path.stat()):
                os.ftruncate(lock, 0)
                os.write(lock, f"{os.getpid()} {now()}\n".encode())
                self._lock = lock
        except BlockingIOError:
            raise StateLockedError(
                f"another run is in progress ({self.holder() or 'unknown process'}) and holds "
                f"{self._lock_path}; nothing was done; try again when it has ended"
            ) from None
        finally:
            if self._lock is None:
                os.close(lock)

    def unlock(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            # No LOCK_UN: in a forked child it would take the lock from the parent too.
            os.close(self._lock)
            self._lock = None

    def holder(self) -> str | None:
        """Who holds the lock, as the kernel lists it; None if nobody does, or where there is no such list."""
        # To try the lock would be to hold it for an instant, in which a run could fail to take it.
        try:
            status = self._lock_path.stat()
            device = status.st_dev
            ours = f"{os.major(device):02x}:{os.minor(device):02x}:{status.st_ino}"
            said, _, since = self._lock_path.read_text(errors="replace").strip().partition(" ")
            for line in Path("/proc/locks").read_text().splitlines():
                _, kind, _, _, pid, place, *_ = line.split()
                if kind != "FLOCK" or place.rpartition(":")[2] != str(status.st_ino):
                    continue
                # 0: it is in another container, or only a child of it is left. Another number than what the
                # file says: it has not written its own there yet; or this is a file elsewhere with the same
                # inode. Not all file systems tell the same device here (btrfs does not).
                if pid in ("0", said):
                    return f"process {said}, since {since}"
                if place == ours:
                    return f"process {pid}"
        except OSError:
            pass
        return None

    def _sweep(self) -> None:
        with suppress(FileNotFoundError):
            if not filecmp.cmp(self._backup, self.path, shallow=False):
                # Killed between the two renames of a save: finish it.
                _replace(self._backup, self.previous)
        for left in self.path.parent.iterdir():
            if left.name.startswith(f".{self.path.name}.") and left.name.endswith(".tmp"):
                left.unlink(missing_ok=True)

    # Read

    def generations(self) -> list[Generation]:
        """The current file and the one before it, by their footers."""
        found = []
        for path in (self.path, self.previous):
            try:
                with _opened(path) as file:
                    found.append(inspect(str(path), file)[0])
            except FileNotFoundError:
                # Whoever takes the current file away wants to begin anew, not from the one before it.
                break
            except StateError as exc:
                found.append(Generation("", 0, "", 0, str(path), str(exc).removeprefix(f"{path}: ")))
        return found

    def read(
        self, load: Callable[[BinaryIO], Any], generation: Generation | None = None
    ) -> tuple[Any, Generation]:
        """See `StateStore.read`."""
        path = Path(generation.where) if generation else self.path
        with _opened(path) as file:
            return read_state(str(path), file, load)

    def set_aside(self, broken: Generation) -> str:
        """Move a broken file away, under a name with the time, and return the new name."""
        path = Path(broken.where)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = path.with_name(f"{path.name}.broken-{stamp}-{os.urandom(4).hex()}")
        with os_errors_as_state_error(f"{path}: cannot be moved aside"):
            if path == self.path and self.previous.exists():
                _link_or_copy(path, aside)
                self.previous.rename(path)  # so that at no time there is none
            else:
                path.rename(aside)
            _sync_directory(path.parent)
        return str(aside)

    def set_aside_names(self) -> list[str]:
        """The broken files."""
        return sorted(map(str, self.path.parent.glob(f"{self.path.name}*.broken-*")))

    # Write

    def prove_writable(self) -> None:
        """Return if the directory takes a new file as large as the last one."""
        temporary = self._temporary(os.urandom(16).hex())
        with os_errors_as_state_error(f"{self.path}: no new state could be saved"):
            size = LONGEST_FOOTER
            with suppress(FileNotFoundError):
                status = self.path.stat()
                size += status.st_size
                # A file that was made immutable refuses this, as it would refuse to be replaced.
                self.path.chmod(stat.S_IMODE(status.st_mode))
            try:
                with _created(temporary) as file:
                    for at in range(0, size, _CHUNK):
                        file.write(bytes(min(_CHUNK, size - at)))
            finally:
                temporary.unlink(missing_ok=True)

    def write(self, dump: Callable[[Any], None], number: int, *, keep_previous: bool = True) -> Generation:
        """Replace the file; for the rest see `StateStore.write`."""
        id = os.urandom(16).hex()
        temporary = self._temporary(id)
        # What is not to be kept has another name, lest the next run take it for a save to be finished.
        backup = self._backup if keep_previous else self._temporary("replaced")
        in_place = False
        with os_errors_as_state_error(
            f"{self.path}: the state could not be saved",
            "; the state is what it was, and what was published since comes again, with the same ids",
        ):
            backup.unlink(missing_ok=True)
            try:
                with _created(temporary) as file:
                    generation = write_state(file, dump, id, number, str(self.path))
                    file.flush()
                    os.fsync(file.fileno())
                with suppress(FileNotFoundError):
                    _link_or_copy(self.path, backup)
                temporary.rename(self.path)
                in_place = True
                _sync_directory(self.path.parent)
            except BaseException:
                # The caller will be told that nothing was saved, so nothing may have been.
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                    if backup.exists():
                        _replace(backup, self.path)
                    elif in_place:
                        self.path.unlink(missing_ok=True)
                raise
        # The new state is safe; should this fail or be cut off, the next run does it.
        with suppress(OSError):
            if keep_previous:
                _replace(backup, self.previous)
            backup.unlink(missing_ok=True)
        return generation


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with os_errors_as_state_error(f"{path}: cannot be read", but=FileNotFoundError):
        if path.is_symlink():
            raise StateError(f"{path}: is a symbolic link; put the file itself there")
        check_safe(path, path.stat())  # before it is opened, which may be denied without a word on why
        with open(path, "rb", opener=_open_file_itself) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise StateError(f"{path}: is not a regular file; move it away")
            check_safe(path, status)
            yield file


def _open_file_itself(path: str, flags: int) -> int:
    # O_NONBLOCK: to open a pipe would be to wait for somebody to write to it.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def check_safe(path: Path, status: os.stat_result) -> None:
    """Refuse what somebody else could have written."""
    if status.st_uid != os.geteuid():
        # Not for root, who would take it from the user who runs the collector.
        mend = f", or have root give it to this one: chown {os.geteuid()} {path}" if os.geteuid() else ""
        raise StateError(
            f"{path}: belongs to another user (uid {status.st_uid}, this is uid {os.geteuid()}), who could "
            f"put a state of his own there; run as that user{mend}"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(
            f"{path}: others may write to it and could put a state of their own there; "
            f"mend it with: chmod go-w {path}"
        )


@contextmanager
def _created(path: Path) -> Iterator[BinaryIO]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file


def make_private_directories(directory: Path) -> None:
    """Make the directory and those above it, as far as they are missing, durably and for nobody else."""
    if directory.exists():
        return
    make_private_directories(directory.parent)
    owner = directory.parent.stat().st_uid
    if os.geteuid() == 0 and owner:
        raise StateError(
            f"{directory.parent}: belongs to uid {owner}, who could not use what root makes there; "
            "run as that user"
        )
    directory.mkdir(0o700, exist_ok=True)
    with suppress(PermissionError):  # it may be closed to us but for passing through
        _sync_directory(directory.parent)


@contextmanager
def os_errors_as_state_error(
    what: str, outcome: str = "", but: type[OSError] | tuple[()] = ()
) -> Iterator[None]:
    """Raise what the system refuses, but `but`, as `StateError`: of `what`, and with which `outcome`."""
    try:
        yield
    except but:
        raise
    except OSError as exc:
        named = exc.filename if isinstance(exc.filename, str) and exc.filename not in what else ""
        where = f" ({named})" if named else ""
        mend = "; run this as the user who runs the collector" if isinstance(exc, PermissionError) else ""
        raise StateError(f"{what}: {exc.strerror or exc}{where}{mend}{outcome}") from exc


def _replace(source: Path, target: Path) -> None:
    """Rename, also where both are names of one file already (POSIX then keeps both)."""
    source.replace(target)
    source.unlink(missing_ok=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without hard links. The copy has a name that is swept, lest half of it count.
        import shutil

        copy = target.with_name(f".{target.name.lstrip('.')}.copy.tmp")
        copy.unlink(missing_ok=True)
        with source.open("rb") as original, _created(copy) as file:
            shutil.copyfileobj(original, file)
            file.flush()
            os.fsync(file.fileno())
        copy.rename(target)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
