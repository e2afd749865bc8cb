"""The state file of n6: a plain pickle, which n6 can load, and a line of ours that its loader never reads."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from n6_stateful.errors import StateError

_MARK = b"\n#n6-journal "
_LINE = re.compile(rb"id=(?P<id>\w+) number=(?P<number>\d+) sha256=(?P<sha256>\w+)\n")


class StateFile(NamedTuple):
    """The state file: a plain pickle, which n6 can load, and a line that names the journal's generation.

    Attributes:
        pickle: None if the file is missing or damaged.
        problem: where it is and what is wrong with it, or empty.
        id: of the journal it was written from; empty if it was not written by us.
        number: of the generation.
        where: what errors call it.
    """

    pickle: bytes | None
    problem: str = ""
    id: str = ""
    number: int = 0
    where: str = ""

    @property
    def is_of_python_2(self) -> bool:
        """Whether n6 saved it under Python 2: n6's own rule, since under Python 3 it uses no protocol 2."""
        return not self.id and self.pickle is not None and self.pickle[:2] <= b"\x80\x02"

    @classmethod
    def parse(cls, data: bytes, where: str = "") -> StateFile:
        """What `data`, the contents of a file, is."""
        body, mark, line = data.rpartition(_MARK)
        if not mark:
            is_whole = data.endswith(b".")
            return cls(data, where=where) if is_whole else cls(None, f"{where}: is not a complete pickle")
        match = _LINE.fullmatch(line)
        if not match or match["sha256"] != _digest(match["id"], match["number"], body):
            return cls(None, f"{where}: its contents are not what was saved")
        return cls(body, "", match["id"].decode(), int(match["number"]), where)

    @classmethod
    def read(cls, path: Path) -> StateFile:
        """The file at `path`.

        Raises:
            StateError: it is there, but cannot be read.
        """
        try:
            return cls.parse(path.read_bytes(), str(path))
        except FileNotFoundError:
            return cls(None)
        except OSError as exc:
            raise StateError(f"{path}: cannot be read: {exc.strerror}; nothing was published") from exc

    def write(self, path: Path) -> None:
        """Replace the file at `path`; when this returns, it would survive a power cut.

        Raises:
            StateError: it was not written.
        """
        temporary = path.with_name(f".{path.name}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(self.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)  # noqa: PTH104 - like the calls around it
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fsync(directory)
            os.close(directory)
        except OSError as exc:
            raise StateError(
                f"the state file {path} was not written: {exc.strerror}; the state is safe in the journal; "
                "make room, and the next run writes the file"
            ) from exc

    def to_bytes(self) -> bytes:
        """The contents of the file."""
        id, number, data = self.id.encode(), b"%d" % self.number, self.pickle or b""
        return data + _MARK + b"id=%s number=%s sha256=%s\n" % (id, number, _digest(id, number, data))


def _digest(id: bytes, number: bytes, data: bytes) -> bytes:
    return hashlib.sha256(b"%s %s %s" % (id, number, data)).hexdigest().encode()
