"""The bytes of a saved state, the same in every store.

They are a plain pickle, which any `pickle.load` reads: it begins with a mark that a pickle machine pushes and
pops again, and after the pickle's end comes a footer line with the generation, the time, the length and the
SHA-256 of all that precedes it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from n6_stateful.errors import StateError
from n6_stateful.state.store import BrokenStateError, Generation, load_pickle

VERSION = 1
# PROTO 4, SHORT_BINUNICODE "n6-stateful", POP: tells our files from n6's even when the footer is lost.
MARK = b"\x80\x04\x8c\x0bn6-stateful0"
SIGNATURE = b"\n#n6-stateful "
LONGEST_FOOTER = 512
_CHUNK = 1 << 20


def write_state(file: Any, dump: Callable[[Any], None], id: str, number: int, where: str) -> Generation:
    """Write a state to a file that is at its beginning.

    Args:
        file: what has a method `write(bytes)` that takes all it is given.
        dump: as `StateStore.write` takes it.
        id: of the generation.
        number: of the generation.
        where: of the generation.
    """
    writer = _HashingWriter(file)
    writer.write(MARK)
    dump(writer)
    saved = now()
    line = (
        SIGNATURE
        + (
            f"{VERSION} generation={id} number={number} saved={saved} "
            f"length={writer.length} sha256={writer.hash.hexdigest()} check="
        ).encode()
    )
    line += _checksum(line) + b"\n"
    file.write(line)
    return Generation(id, number, saved, writer.length + len(line), where)


class _HashingWriter:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.length = 0

    def write(self, data: Any) -> int:
        self.hash.update(data)
        size = self._file.write(data)
        self.length += size
        return size


def read_state(where: str, file: BinaryIO, load: Callable[[BinaryIO], Any]) -> tuple[Any, Generation]:
    """What `load` makes of a file, one of ours or a plain pickle, and its generation. For `load` and the
    errors see `StateStore.read`; `where` is what they call the file."""
    generation, left, sha256 = inspect(where, file)
    digest = hashlib.sha256()
    while left and (chunk := file.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    if sha256 not in ("", digest.hexdigest()):
        raise BrokenStateError(f"{where}: its contents are not what was saved")
    file.seek(0)
    loaded = load_pickle(where, file, load, verified=bool(sha256))
    if not sha256 and file.read(1):
        raise BrokenStateError(f"{where}: something follows the pickle")
    return loaded, generation


def inspect(where: str, file: BinaryIO) -> tuple[Generation, int, str]:
    """The generation in an open file, the length of its pickle and that's SHA-256 in hex, empty for a file
    that is not ours. It is not read through, and at its beginning then."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LONGEST_FOOTER))
    tail = file.read()
    file.seek(0)
    ours = file.read(len(MARK)) == MARK
    file.seek(0)
    at = tail.rfind(SIGNATURE)
    if not size:
        raise BrokenStateError(f"{where}: is empty")
    if at < 0 and not ours:
        return Generation("", 0, "", size, where), 0, ""
    line = tail[max(at, 0) :]
    checked = line[: line.rfind(b"check=") + len("check=")]
    words = checked.decode(errors="replace").split()
    said = dict(word.partition("=")[::2] for word in words[2:])
    try:
        if line != checked + _checksum(checked) + b"\n":
            raise ValueError  # noqa: TRY301
        if words[1] != str(VERSION):
            raise StateError(
                f"{where}: was written by a newer n6-stateful-runtime (format {words[1]}, this one knows "
                f"{VERSION}); upgrade the runtime, or `state restore` an older state"
            )
        length, sha256 = int(said["length"]), said["sha256"]
        generation = Generation(said["generation"], int(said["number"]), said["saved"], size, where)
    except (ValueError, LookupError):
        raise BrokenStateError(f"{where}: its footer is damaged or missing") from None
    if length != size - len(line):
        raise BrokenStateError(f"{where}: has {size - len(line)} bytes where {length} were saved")
    return generation, length, sha256


def _checksum(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:16].encode()


def now() -> str:
    """The time, UTC, as footers have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
