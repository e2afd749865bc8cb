"""What may come out of a pickle, and so go into one: plain data, the collector's own classes, and nothing
that acts.

A pickle is a program. This module runs it with a vocabulary of data types only, so that whoever can write
a state file (a backup restored from elsewhere, a shared disk, another user) cannot run code through it.
See https://docs.python.org/3/library/pickle.html#restricting-globals for the mechanism.

What consists of Python's own containers, texts, numbers and times, as most states do, is left to the fast
unpickler; whatever else a pickle asks for is looked at step by step by the careful one.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from copyreg import dispatch_table
from importlib import import_module
from types import FunctionType
from typing import Any, BinaryIO

from n6_stateful.state.admission import Admission, RefusedError, as_of_today
from n6_stateful.state.unpickler import HELPERS, CarefulUnpickler

# How to decode the `str` of Python 2 so that no byte is lost, as `pickle.load` takes it.
LOSSLESS = {"encoding": "utf-8", "errors": "surrogateescape"}

# A call of one of these, with any arguments, makes a set or an immutable object and does nothing else.
_HARMLESS = {
    *("builtins.set", "builtins.frozenset", "decimal.Decimal", "datetime.date", "datetime.datetime"),
    *("datetime.time", "datetime.timedelta", "datetime.timezone"),
}
_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE

# The opcodes that need no care by themselves, by the size of what follows them; negative: by the size of the
# length that follows them. Left out are those of protocols 0 and 1, and those that put something at any place
# in the memo: the C unpickler makes room up to there.
_BY_SIZE = {
    1: b"Khq\x80",
    2: b"M",
    4: b"Jj",
    8: b"G\x95",
    -1: b"C\x8a\x8c",
    -4: b"BX\x8b",
    -8: b"\x8d\x8e\x96",
}
_SIZES = dict.fromkeys(b"()012NQRabdelostu]}\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94", 0)
_SIZES |= {opcode: size for size, opcodes in _BY_SIZE.items() for opcode in opcodes}
_STOP, _MEMOIZE, _SHORT_TEXT, _TUPLES = 0x2E, 0x94, 0x8C, frozenset(b"t\x85\x86\x87")
# As many tuples in one another as the C stack surely bears when they are hashed.
_MOST_TUPLES = 10_000


def load(file: BinaryIO, admission: Admission = Admission(), **py2_kwargs: str) -> Any:  # noqa: B008
    """The object that the pickle in `file` describes; reads up to its end.

    Args:
        file: can seek; what follows the pickle in it stays unread.
        admission: which classes are admitted beside plain data.
        py2_kwargs: `encoding` and `errors`, as `pickle.load` takes them, for a pickle of Python 2.

    Raises:
        RefusedError: something is not admitted, or cannot be imported.
        StateError: a `str` of Python 2 cannot be decoded.
        Exception: the pickle is broken; what exactly is raised depends on how.
    """
    return load_with(lambda file: CarefulUnpickler(file, admission, **py2_kwargs), file, bool(py2_kwargs))


def load_with(careful: Callable[[BinaryIO], CarefulUnpickler], file: BinaryIO, of_py2: bool) -> Any:
    """The object that the pickle in `file` describes: `careful` makes what loads it if that needs care."""
    begin = file.tell()
    if not of_py2 and _is_tame(file):
        try:
            return _FastUnpickler(file).load()
        except _NeedsCareError:
            file.seek(begin)
    return careful(file).load()


class _NeedsCareError(Exception):
    pass


class _FastUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module, name = as_of_today(module, name)
        found: Any = getattr(import_module(module), name) if f"{module}.{name}" in _HARMLESS else None
        # What is written in Python, as Decimal is in some Pythons, a pickle could change.
        if found is None or not found.__flags__ & _IMMUTABLE_TYPE:
            raise _NeedsCareError
        return found


def _is_tame(file: BinaryIO) -> bool:
    """Whether the pickle's opcodes leave it to the classes that it names, whether it needs care."""
    begin = file.tell()
    data = file.read()
    file.seek(begin)
    at = tuples = 0
    try:
        while (opcode := data[at]) != _STOP:
            if opcode == _MEMOIZE:  # these two are what there is most of
                at += 1
            elif opcode == _SHORT_TEXT:
                at += data[at + 1] + 2
            elif (size := _SIZES[opcode]) >= 0:
                at += size + 1
                tuples += opcode in _TUPLES
            else:
                at += 1
                at += int.from_bytes(data[at : at - size], "little") - size
    except LookupError:  # of another kind, or cut off
        return False
    return tuples <= _MOST_TUPLES


def is_of_py2(file: BinaryIO) -> bool:
    """Whether the pickle in `file` is one of Python 2. n6 tells it by the protocol: under Python 3 it never
    wrote 2 or older. Others did, and then their `bytes` tell."""
    begin = file.tell()
    try:
        if file.read(2) > b"\x80\x02":
            return False
        file.seek(begin)
        for opcode, argument, _ in opcodes(file):
            if opcode.name in ("STRING", "BINSTRING", "SHORT_BINSTRING"):
                return True
            if argument in ("_codecs encode", "__builtin__ bytes"):
                return False
    except Exception:  # noqa: S110 - garbage makes it raise anything; to load it will tell
        pass
    finally:
        file.seek(begin)
    return True


def opcodes(file: BinaryIO) -> Iterator[tuple[Any, Any, int | None]]:
    """What `pickletools.genops` finds from the file's position to the pickle's end: `(opcode, argument,
    position)`.

    Raises:
        Exception: garbage makes it raise anything.
    """
    from pickletools import genops

    bounded: Any = _Bounded(file)
    return genops(bounded)


class _Bounded:
    """Reads nothing instead of more than there is: garbage asks for any size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        begin = file.tell()
        self._size = file.seek(0, os.SEEK_END)
        file.seek(begin)
        self.readline = file.readline

    def read(self, size: int) -> bytes:
        return self._file.read(size) if size <= self._size - self._file.tell() else b""


class Pickler(pickle.Pickler):
    """Refuses to write what `load`, with the same admission, would refuse to read.

    Args:
        file: what has a method `write(bytes)`.
        protocol: as `pickle.Pickler` takes it.
        admission: which classes are admitted beside plain data.
    """

    def __init__(self, file: Any, protocol: int, admission: Admission) -> None:
        super().__init__(file, protocol, fix_imports=False)
        self._protocol = protocol if protocol >= 0 else pickle.HIGHEST_PROTOCOL
        self._admission = admission
        self._met: set[type] = set()

    def reducer_override(self, obj: Any) -> Any:
        """Called for every object but the most common plain ones, and for each class and function that the
        pickle is going to name.

        Raises:
            RefusedError: `load` would not admit it.
        """
        kind = type(obj)
        if kind in self._met:
            return NotImplemented
        reduced = obj.__qualname__ if isinstance(obj, (type, FunctionType)) else self._reduced(obj)
        if isinstance(reduced, str):
            module = getattr(obj, "__module__", None) or kind.__module__
            name = getattr(obj, "__qualname__", None) or kind.__qualname__
            module, name = as_of_today(module, name)
            if (module, name) not in HELPERS:
                if not isinstance(obj, type):
                    raise RefusedError(f"{module}.{name} is not a class")
                self._admission.check(module, name)
            if "." in name and self._protocol < 4:  # would be written as a call of getattr
                raise RefusedError(f"{module}.{name} is a class in a class: set pickle_protocol = 4")
        elif reduced[0] is getattr:
            HELPERS["builtins", "getattr"](*reduced[1])
        else:
            self._met.add(kind)
        return NotImplemented

    def _reduced(self, obj: Any) -> Any:
        reduce = dispatch_table.get(type(obj))
        return reduce(obj) if reduce else obj.__reduce_ex__(self._protocol)
