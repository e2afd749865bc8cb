"""The file store: one durable, locked, checked file.

The file is a plain pickle, which any `pickle.load` reads: it begins with a mark that a pickle machine
pushes and pops again, and after the pickle's end comes a footer line with the generation, the time, the
length and the SHA-256 of all that precedes it. Next to it lie

    <name>.previous   the state before the last run that published something
    <name>.lock       held (flock) by the run that is in progress; says who that is
    <name>.broken-*   files that were found broken, kept for a person to look at
    .<name>.*.tmp     what a killed run has left; swept by the next one
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from n6_stateful.errors import StateError, StateLockedError
from n6_stateful.state.store import BrokenStateError, Generation, load_pickle

VERSION = 1
# PROTO 4, SHORT_BINUNICODE "n6-stateful", POP: tells our files from n6's even when the footer is lost.
MARK = b"\x80\x04\x8c\x0bn6-stateful0"
SIGNATURE = b"\n#n6-stateful "
_LONGEST_FOOTER = 512
_CHUNK = 1 << 20
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Footer(NamedTuple):
    """What the last line of a state file says."""

    generation: str
    number: int
    saved: str
    length: int
    sha256: str


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
        with _os_errors_as_state_error(f"{directory}: cannot be used"):
            _make_private_directories(directory)
            _check_safe(directory, directory.stat())
            while self._lock is None:
                self._try_lock()
            try:
                os.ftruncate(self._lock, 0)
                os.write(self._lock, f"{os.getpid()} {_now()}\n".encode())
            except BaseException:
                self.unlock()
                raise
        with _os_errors_as_state_error(f"{directory}: what a killed run has left cannot be swept"):
            self._sweep()

    def _try_lock(self) -> None:
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody may have removed the file in between; then we locked nothing.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), self._lock_path.stat()):
                    self._lock = lock
        except BlockingIOError:
            raise StateLockedError(
                f"another run is in progress ({self.holder() or 'unknown process'}) and holds "
                f"{self._lock_path}; nothing was done; try again when it has ended"
            ) from None
        finally:
            if self._lock is None:
                os.close(lock)

    def holder(self) -> str | None:
        """Who holds the lock, as the kernel lists it; None if nobody does, or where there is no such list."""
        # To try the lock would be to hold it for an instant, in which a run could fail to take it.
        try:
            inode = self._lock_path.stat().st_ino
            locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
            said, _, since = self._lock_path.read_text(errors="replace").strip().partition(" ")
        except OSError:
            return None
        for _, kind, _, _, pid, place, *_ in locks:
            if kind == "FLOCK" and place.endswith(f":{inode}"):
                # 0: it is in another container, or only a child of it is left. Another number than what is
                # written there: it is about to write.
                return f"process {said}, since {since}" if pid in ("0", said) else f"process {pid}"
        return None

    def unlock(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            # No LOCK_UN: in a forked child it would take the lock from the parent too.
            os.close(self._lock)
            self._lock = None

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
                with (
                    _os_errors_as_state_error(f"{path}: cannot be read", but=FileNotFoundError),
                    _opened(path) as (file, size),
                ):
                    found.append(_generation(path, size, _find_footer(str(path), file)))
            except FileNotFoundError:
                # Whoever takes the current file away wants to begin anew, not from the one before it.
                break
            except StateError as exc:
                with suppress(OSError):
                    found.append(Generation("", 0, "", path.lstat().st_size, str(path), str(exc)))
        return found

    def read(
        self, load: Callable[[BinaryIO], Any], generation: Generation | None = None
    ) -> tuple[Any, Generation]:
        """See `StateStore.read`."""
        path = Path(generation.where) if generation else self.path
        with _opened(path) as (file, size):
            loaded, footer = read(str(path), file, load)
            return loaded, _generation(path, size, footer)

    def set_aside(self, broken: Generation) -> str:
        """Move a broken file away, under a name with the time, and return the new name."""
        path = Path(broken.where)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        with _os_errors_as_state_error(f"{path}: cannot be moved aside"):
            names = [
                f"{path.name}.broken-{stamp}{suffix}" for suffix in ("", *map("-{}".format, range(2, 1000)))
            ]
            aside = next((path.with_name(name) for name in names if not path.with_name(name).exists()), None)
            if aside is None:
                raise StateError(f"{path}: cannot be moved aside: too many broken files are there")
            if path == self.path and self.previous.exists():
                _link_or_copy(path, aside)
                self.previous.rename(path)  # so that at no time there is none
            else:
                path.rename(aside)
            _sync_directory(path.parent)
        return str(aside)

    def set_aside_names(self) -> list[str]:
        """The broken files, oldest first."""
        return sorted(map(str, self.path.parent.glob(f"{self.path.name}*.broken-*")))

    # Write

    def prove_writable(self) -> None:
        """Return if the directory takes a new file as large as the last one."""
        temporary = self._temporary(os.urandom(16).hex())
        with _os_errors_as_state_error(f"{self.path}: no new state could be saved"):
            size = self.path.stat().st_size if self.path.exists() else 0
            try:
                descriptor = os.open(temporary, _NEW_FILE, 0o600)
                try:
                    _reserve(descriptor, max(size, _LONGEST_FOOTER))
                finally:
                    os.close(descriptor)
                _check_replaceable(self.path)
            finally:
                temporary.unlink(missing_ok=True)

    def write(self, dump: Callable[[Any], None], number: int, *, keep_previous: bool = True) -> Generation:
        """Replace the file; for the rest see `StateStore.write`."""
        generation = os.urandom(16).hex()
        temporary = self._temporary(generation)
        try:
            with _os_errors_as_state_error(
                f"{self.path}: the state could not be saved", "; the state is what it was"
            ):
                footer = _write_new(temporary, dump, generation, number)
                size = temporary.stat().st_size
                self._put_in_place(temporary, keep_previous)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return Generation(generation, number, footer.saved, size, str(self.path))

    def _put_in_place(self, temporary: Path, keep_previous: bool) -> None:
        # What is not to be kept has another name, lest the next run finish what was no end of this save.
        backup = self._backup if keep_previous else self._temporary("replaced")
        backup.unlink(missing_ok=True)
        try:
            _link_or_copy(self.path, backup)
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
                    _replace(backup, self.path)
                else:
                    self.path.unlink(missing_ok=True)
            raise
        # The new state is safe; should this fail or be cut off, the next run does it.
        with suppress(OSError):
            if had_one and keep_previous:
                _replace(backup, self.previous)
            backup.unlink(missing_ok=True)


def read(where: str, file: BinaryIO, load: Callable[[BinaryIO], Any]) -> tuple[Any, Footer | None]:
    """What `load` makes of the open `file`, and its footer: None for a pickle that is not ours, as n6's.
    For the errors see `StateStore.read`; `where` is what they call the file."""
    with _os_errors_as_state_error(f"{where}: cannot be read"):
        footer = _find_footer(where, file)
        if footer is not None:
            _verify(where, file, footer)
        file.seek(0)
    loaded = load_pickle(where, file, load, verified=footer is not None)
    if footer is None:
        with _os_errors_as_state_error(f"{where}: cannot be read"):
            if file.read(1):
                raise BrokenStateError(f"{where}: something follows the pickle")
    return loaded, footer


def _generation(path: Path, size: int, footer: Footer | None) -> Generation:
    if footer is None:
        return Generation("", 0, "", size, str(path))
    return Generation(footer.generation, footer.number, footer.saved, size, str(path))


class _HashingWriter:
    """Writes to a file descriptor, and hashes and counts what it writes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.hash = hashlib.sha256()
        self.length = 0

    def write(self, data: Any) -> int:
        """Write all of `data`, any object with the buffer interface."""
        self.hash.update(data)
        with memoryview(data).cast("B") as view:
            written = 0
            while written < len(view):
                written += os.write(self._descriptor, view[written:])
            self.length += written
        return written


def _write_new(path: Path, dump: Callable[[Any], None], generation: str, number: int) -> Footer:
    descriptor = os.open(path, _NEW_FILE, 0o600)
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
    fields = " ".join(f"{name}={value}" for name, value in footer._asdict().items())
    line = SIGNATURE + f"{VERSION} {fields} check=".encode()
    return line + _checksum(line) + b"\n"


def _find_footer(where: str, file: BinaryIO) -> Footer | None:
    """The footer of a file of ours; None for a file that is not ours."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LONGEST_FOOTER))
    tail = file.read()
    at = tail.rfind(SIGNATURE)
    file.seek(0)
    if at < 0 and file.read(len(MARK)) != MARK:
        if not size:
            raise BrokenStateError(f"{where}: is empty")
        return None
    line = tail[max(at, 0) :]
    checked = line[: line.rfind(b"check=") + len("check=")]
    if line != checked + _checksum(checked) + b"\n":
        raise BrokenStateError(f"{where}: its footer is damaged or missing")
    _, version, *fields = checked.decode().split()
    if int(version) != VERSION:
        raise StateError(
            f"{where}: was written by a newer n6-stateful-runtime (format {version}, this one knows "
            f"{VERSION}); upgrade the runtime, or `state restore` an older state"
        )
    said = dict(field.split("=") for field in fields)
    footer = Footer(
        said["generation"], int(said["number"]), said["saved"], int(said["length"]), said["sha256"]
    )
    if footer.length != size - len(line):
        raise BrokenStateError(f"{where}: has {size - len(line)} bytes where {footer.length} were saved")
    return footer


def _verify(where: str, file: BinaryIO, footer: Footer) -> None:
    file.seek(0)
    left = footer.length
    digest = hashlib.sha256()
    while left and (chunk := file.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    if left or digest.hexdigest() != footer.sha256:
        raise BrokenStateError(f"{where}: its contents are not what was saved")


def _checksum(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:16].encode()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    with _os_errors_as_state_error(f"{path}: cannot be read", but=FileNotFoundError):
        try:
            # O_NONBLOCK: to open a pipe would be to wait for somebody to write to it.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise StateError(f"{path}: is a symbolic link; put the file itself there") from exc
            raise
        try:
            status = os.fstat(descriptor)
            _check_regular(path, status)
            _check_safe(path, status)
            file = os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    with file:
        yield file, status.st_size


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StateError(f"{path}: is not a regular file; move it away")


def _check_safe(path: Path, status: os.stat_result) -> None:
    """Refuse what somebody else could have written."""
    if status.st_uid != os.geteuid():
        raise StateError(
            f"{path}: belongs to another user (uid {status.st_uid}, this is uid {os.geteuid()}), who could "
            f"put a state of his own there; run as that user, or mend it with: chown {os.geteuid()} {path}"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(
            f"{path}: others may write to it and could put a state of their own there; "
            f"mend it with: chmod go-w {path}"
        )


def _make_private_directories(directory: Path) -> None:
    if directory.exists():
        return
    _make_private_directories(directory.parent)
    directory.mkdir(0o700, exist_ok=True)
    with suppress(PermissionError):  # it may be closed to us but for passing through
        _sync_directory(directory.parent)


@contextmanager
def _os_errors_as_state_error(
    what: str, outcome: str = "", but: type[OSError] | tuple[()] = ()
) -> Iterator[None]:
    try:
        yield
    except but:
        raise
    except OSError as exc:
        named = exc.filename if isinstance(exc.filename, str) and exc.filename not in what else ""
        where = f" ({named})" if named else ""
        raise StateError(f"{what}: {exc.strerror or exc}{where}{outcome}") from exc


def _reserve(descriptor: int, size: int) -> None:
    """Give a new file `size` bytes on its disk."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        # Neither the system nor its C library can do it.
        with os.fdopen(os.dup(descriptor), "wb") as file:
            for at in range(0, size, _CHUNK):
                file.write(bytes(min(_CHUNK, size - at)))


def _check_replaceable(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))
    except OSError as exc:
        if exc.errno == errno.EPERM:  # it was made immutable; a lack of rights on the file is no hindrance
            raise


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
        descriptor = os.open(copy, _NEW_FILE, 0o600)
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
