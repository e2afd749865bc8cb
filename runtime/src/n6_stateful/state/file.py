"""One durable, locked, checked file.

The file is a plain pickle, which any `pickle.load` reads: it begins with a mark that a pickle machine
pushes and pops again, and after the pickle's end comes a footer line with the generation, the time, the
length and the SHA-256 of all that precedes it. Next to it lie

    <name>.previous   the state before the last one that was saved
    <name>.lock       held (flock) by the run that is on its way; says who that is
    <name>.broken-*   files that were found broken, kept for a person to look at
    .<name>.*.tmp     what a killed save has left; swept at the next load
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import hashlib
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from n6_stateful.errors import StateError, StateLockedError
from n6_stateful.state.store import BrokenStateError as BrokenStateError


class Footer(NamedTuple):
    """What the last line of a state file says."""

    generation: str
    number: int
    saved: str
    length: int
    sha256: str


LOGGER = logging.getLogger(__name__)

VERSION = 1
# PROTO 4, SHORT_BINUNICODE "n6-stateful", POP: tells our files from n6's even when the footer is lost.
MARK = b"\x80\x04\x8c\x0bn6-stateful0"
SIGNATURE = b"\n#n6-stateful "
_FOOTER = re.compile(
    rb"\n#n6-stateful (?P<version>\d+) generation=(?P<generation>[0-9a-f]{32}) number=(?P<number>\d+) "
    rb"saved=(?P<saved>[0-9T:.-]+Z) length=(?P<length>\d+) sha256=(?P<sha256>[0-9a-f]{64}) "
    rb"check=(?P<check>[0-9a-f]{16})\n"
)
_LONGEST_FOOTER = 512
_CHUNK = 1 << 20
# How long whoever holds the lock may take to say who it is, or to have looked: seconds, and how often.
_INSTANT, _INSTANTS = 0.002, 50

_ADVICE = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "raise the quota of that user",
    errno.EROFS: "mount that file system for writing, or set another cache_dir",
    errno.EACCES: "let the user who runs this write there, or set another cache_dir",
    errno.EPERM: "let the user who runs this write there, or set another cache_dir",
    errno.ENOTDIR: "cache_dir has to be a directory",
    errno.EIO: "look after that disk",
}


class StateFile:
    """The file at `path`. Whoever writes it holds the lock (`lock()`) meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.previous = path.with_name(path.name + ".previous")
        self._lock_path = path.with_name(path.name + ".lock")
        self._kept = path.with_name(f".{path.name}.kept.tmp")
        self._lock: int | None = None

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
        with _telling(f"{directory}: cannot be used"):
            _make_private_directories(directory)
            _check_safe(directory, directory.stat())
            while True:
                lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                try:
                    self._flock(lock)
                    # Somebody may have removed the file in between; then we locked nothing.
                    with suppress(FileNotFoundError):
                        if os.path.samestat(os.fstat(lock), self._lock_path.stat()):
                            break
                except BaseException:
                    os.close(lock)
                    raise
                os.close(lock)
            self._lock = lock
            try:
                os.ftruncate(lock, 0)
                os.write(lock, f"{os.getpid()} {_now()}\n".encode())
            except BaseException:
                self.unlock()
                raise
        self._sweep()

    def _flock(self, lock: int) -> None:
        for _ in range(_INSTANTS):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if _said_by_a_living_process(lock):
                    break
                time.sleep(_INSTANT)
            else:
                return
        raise StateLockedError(
            f"another run is on its way ({_holder(lock)}) and holds {self._lock_path}; "
            "nothing was done; try again when it has ended"
        )

    def holder(self) -> str | None:
        """Who holds the lock, for people to read; None if nobody does."""
        try:
            lock = os.open(self._lock_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(lock)
        finally:
            os.close(lock)
        return None

    def unlock(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            # No LOCK_UN: in a forked child it would take the lock from the parent too.
            os.close(self._lock)
            self._lock = None

    def _sweep(self) -> None:
        with _telling(f"{self.path.parent}: what a killed save has left cannot be swept"):
            with suppress(FileNotFoundError):
                if not filecmp.cmp(self._kept, self.path, shallow=False):
                    # Killed between the two renames of a save: finish it.
                    _replace(self._kept, self.previous)
            for left in self.path.parent.iterdir():
                if left.name.startswith(f".{self.path.name}.") and left.name.endswith(".tmp"):
                    left.unlink(missing_ok=True)

    # Read

    def read(self, load: Callable[[BinaryIO], Any], path: Path | None = None) -> tuple[Any, Footer | None]:
        """What `load` makes of the file, and its footer (None for a pickle that is not ours, as n6's).

        Args:
            load: reads a pickle from a binary file, up to the pickle's end.
            path: another file to read; the default is the state file.

        Raises:
            FileNotFoundError: there is none.
            BrokenStateError: it is broken.
            StateError: it cannot be read, is not safe, or was written by a newer version.
        """
        path = path or self.path
        with _opened(path) as file:
            return read(path, file, load)

    def peek(self, path: Path) -> Footer | None:
        """The footer of the file at `path`, whose contents are not checked; None if there is no good one."""
        try:
            with _opened(path) as file:
                return _find_footer(path, file)
        except (StateError, OSError):
            return None

    def set_aside(self, path: Path, instead: Path | None = None) -> Path:
        """Move a broken file away, under a name with the time, and return the new name.

        Args:
            path: the broken file.
            instead: a file to move to `path`, so that at no time there is none.

        Raises:
            StateError: it cannot be moved.
        """
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        with _telling(f"{path}: cannot be moved aside"):
            for count in range(1, 1000):
                aside = self.path.with_name(
                    f"{path.name}.broken-{stamp}" + (f"-{count}" if count > 1 else "")
                )
                if not aside.exists():
                    if instead is None:
                        path.rename(aside)
                    else:
                        _link_or_copy(path, aside)
                        instead.rename(path)
                    _sync_directory(self.path.parent)
                    return aside
            raise StateError(f"{path}: cannot be moved aside: too many broken files are there")

    # Write

    def write(self, dump: Callable[[Any], None], number: int) -> Footer:
        """Replace the file by what `dump` writes, and return only when that would survive a power cut.

        Args:
            dump: writes a pickle to an object with a `write(bytes)` method.
            number: the number of the new generation.

        Raises:
            StateError: it could not be written; the file is what it was.
            Exception: whatever `dump` raises; the file is what it was.
        """
        generation = os.urandom(16).hex()
        temporary = self.path.with_name(f".{self.path.name}.{generation}.tmp")
        try:
            with _telling(f"{self.path}: the state could not be saved", "the state is what it was"):
                footer = _write_new(temporary, dump, generation, number)
                self._put_in_place(temporary)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return footer

    def _put_in_place(self, temporary: Path) -> None:
        self._kept.unlink(missing_ok=True)
        try:
            _link_or_copy(self.path, self._kept)
            had_one = True
        except FileNotFoundError:
            had_one = False
        try:
            temporary.rename(self.path)
            _sync_directory(self.path.parent)
        except BaseException:
            # The caller will be told that nothing was saved, so nothing may have been.
            with suppress(OSError):
                if had_one:
                    _replace(self._kept, self.path)
                else:
                    self.path.unlink(missing_ok=True)
            raise
        if had_one:
            # The new state is safe; should this fail or be cut off, the next load does it.
            with suppress(OSError):
                _replace(self._kept, self.previous)


def read(path: Path, file: BinaryIO, load: Callable[[BinaryIO], Any]) -> tuple[Any, Footer | None]:
    """What `load` makes of the open `file`; for the rest see `StateFile.read`. `path` is for the errors."""
    with _telling(f"{path}: cannot be read"):
        footer = _find_footer(path, file)
        if footer is not None:
            _verify(path, file, footer)
        file.seek(0)
    try:
        loaded = load(file)
    except StateError:
        raise
    except OSError as exc:
        raise StateError(f"{path}: cannot be read: {exc.strerror or exc}; nothing was published") from exc
    except Exception as exc:
        if footer is None and not _is_whole_pickle(file):
            raise BrokenStateError(f"{path}: is no pickle: {type(exc).__name__}: {exc}") from exc
        # It is not the file that is wrong: its classes may have changed, or memory be short.
        raise StateError(
            f"{path}: cannot be loaded: {type(exc).__name__}: {exc}; nothing was published and the file "
            "stays as it is; mend the class that fails, or `state import` or `state reset`"
        ) from exc
    if footer is None:
        with _telling(f"{path}: cannot be read"):
            rest = file.read(1)
        if rest:
            raise BrokenStateError(f"{path}: something follows the pickle")
    return loaded, footer


def _is_whole_pickle(file: BinaryIO) -> bool:
    """Whether `file` has a pickle's form from its beginning to its end, whatever it is a pickle of."""
    from pickletools import genops

    bounded: Any = _Bounded(file)
    try:
        for _ in genops(bounded):
            pass
        return not file.read(1)
    except MemoryError:
        return True  # there is as much to read as it says; there is no room for it
    except Exception:  # genops raises anything
        return False


class _Bounded:
    """Reads nothing instead of more than there is: garbage asks for any size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)
        self.readline = file.readline

    def read(self, size: int) -> bytes:
        return self._file.read(size) if size <= self._size - self._file.tell() else b""


class _HashingWriter:
    """Writes to a file descriptor, and hashes and counts what it writes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.hash = hashlib.sha256()
        self.length = 0

    def write(self, data: Any) -> int:
        """Write all of `data`, any object with the buffer interface."""
        self.hash.update(data)
        with memoryview(data) as view:
            size = written = view.nbytes
            self.length += size
            written = os.write(self._descriptor, view)
            while written < size:
                written += os.write(self._descriptor, view.cast("B")[written:])
        return size


def _write_new(path: Path, dump: Callable[[Any], None], generation: str, number: int) -> Footer:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        writer = _HashingWriter(descriptor)
        writer.write(MARK)
        dump(writer)
        footer = Footer(generation, number, _now(), writer.length, writer.hash.hexdigest())
        writer.write(_footer_line(footer))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return footer


def _footer_line(footer: Footer) -> bytes:
    line = (
        f"\n#n6-stateful {VERSION} generation={footer.generation} number={footer.number} "
        f"saved={footer.saved} length={footer.length} sha256={footer.sha256} check="
    ).encode()
    return line + _checksum(line) + b"\n"


def _find_footer(path: Path, file: BinaryIO) -> Footer | None:
    """The footer of a file of ours; None for a file that is not ours."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LONGEST_FOOTER))
    tail = file.read()
    at = tail.rfind(SIGNATURE)
    file.seek(0)
    if at < 0 and file.read(len(MARK)) != MARK:
        if not size:
            raise BrokenStateError(f"{path}: is empty")
        return None
    line = tail[max(at, 0) :]
    match = _FOOTER.fullmatch(line)
    if match is None or match["check"] != _checksum(line[: match.start("check")]):
        raise BrokenStateError(f"{path}: its footer is damaged or missing")
    version, number, length = (int(match[name]) for name in ("version", "number", "length"))
    if version != VERSION:
        raise StateError(
            f"{path}: was written by a newer n6-stateful-runtime (format {version}, this one knows "
            f"{VERSION}); nothing was published; upgrade the runtime, or `state restore` an older state"
        )
    if length != size - len(line):
        raise BrokenStateError(f"{path}: has {size - len(line)} bytes where {length} were saved")
    return Footer(
        match["generation"].decode(), number, match["saved"].decode(), length, match["sha256"].decode()
    )


def _verify(path: Path, file: BinaryIO, footer: Footer) -> None:
    file.seek(0)
    left = footer.length
    digest = hashlib.sha256()
    while left and (chunk := file.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    if left or digest.hexdigest() != footer.sha256:
        raise BrokenStateError(f"{path}: its contents are not what was saved")


def _holder(lock: int) -> str:
    pid, _, since = os.pread(lock, 100, 0).decode("ascii", "replace").strip().partition(" ")
    return f"process {pid or 'unknown'}, since {since or 'unknown'}"


def _said_by_a_living_process(lock: int) -> bool:
    # What a process that is dead has said there is not about the one that holds the lock now; nor is what
    # one with our own number has said, as every run in a container of its own has the same.
    pid = os.pread(lock, 100, 0).partition(b" ")[0]
    try:
        if int(pid) == os.getpid():
            return False
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    return True


def _checksum(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:16].encode()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        # O_NONBLOCK: to open a pipe would be to wait for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise StateError(
                f"{path}: is a symbolic link; nothing was published; put the file itself there"
            ) from exc
        raise _told(exc, f"{path}: cannot be read") from exc
    with _telling(f"{path}: cannot be read"):
        try:
            status = os.fstat(descriptor)
            _check_regular(path, status)
            _check_safe(path, status)
            file = os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    with file:
        yield file


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StateError(f"{path}: is no regular file; nothing was published; move it away")


def _check_safe(path: Path, status: os.stat_result) -> None:
    """Refuse what somebody else could have written."""
    if status.st_uid != os.geteuid():
        raise StateError(
            f"{path}: belongs to another user (uid {status.st_uid}, this is uid {os.geteuid()}), who could "
            "put a state of his own there; nothing was published; run as that user, or mend it with: "
            f"chown {os.geteuid()} {path}"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(
            f"{path}: others may write to it and could put a state of their own there; "
            f"nothing was published; mend it with: chmod go-w {path}"
        )


def _make_private_directories(directory: Path) -> None:
    if directory.exists():
        return
    _make_private_directories(directory.parent)
    directory.mkdir(0o700, exist_ok=True)
    with suppress(PermissionError):  # it may be closed to us but for passing through
        _sync_directory(directory.parent)


@contextmanager
def _telling(what: str, consequence: str = "nothing was published") -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise _told(exc, what, consequence) from exc


def _told(exc: OSError, what: str, consequence: str = "nothing was published") -> StateError:
    named = exc.filename if isinstance(exc.filename, str) and exc.filename not in what else ""
    advice = _ADVICE.get(exc.errno or 0)
    return StateError(
        f"{what}: {exc.strerror or exc}{f' ({named})' if named else ''}; {consequence}"
        + (f"; {advice}" if advice else "")
    )


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
        # A file system without hard links.
        import shutil

        # Under a name that is swept, lest half a copy be taken for the file.
        copy = target.with_name(f".{target.name.lstrip('.')}.copy.tmp")
        copy.unlink(missing_ok=True)
        descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with source.open("rb") as original, os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(original, file)
            file.flush()
            os.fsync(descriptor)
        copy.rename(target)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
