"""What may come out of a pickle, and so go into one: plain data, the collector's own classes, and nothing
that acts.

A pickle is a program. This module runs it with a vocabulary of data types only, so that whoever can write
a state file (a backup restored from elsewhere, a shared disk, another user) cannot run code through it.
See https://docs.python.org/3/library/pickle.html#restricting-globals for the mechanism.
"""

from __future__ import annotations

import operator
import os
import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from copyreg import dispatch_table
from importlib import import_module
from types import FunctionType
from typing import Any, BinaryIO

from n6_stateful.errors import StateError

# Calling one of these, with any arguments, makes an object and does nothing else.
PLAIN_CLASSES = {
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple",
    "collections": "Counter OrderedDict defaultdict deque",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "ipaddress": "IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath",
    "time": "struct_time",
    "types": "SimpleNamespace",
    "uuid": "SafeUUID UUID",
    "zoneinfo": "ZoneInfo",
}
_PLAIN = frozenset((module, name) for module, names in PLAIN_CLASSES.items() for name in names.split())

# Other names under which pickles have them: of Python 2, and of other versions of Python 3.
_RENAMED_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "pathlib._local": "pathlib"}
_RENAMED = {
    ("builtins", "long"): ("builtins", "int"),
    ("builtins", "unicode"): ("builtins", "str"),
    ("builtins", "xrange"): ("builtins", "range"),
}

# How to decode the `str` of Python 2 so that no byte is lost, as `pickle.load` takes it.
LOSSLESS = {"encoding": "utf-8", "errors": "surrogateescape"}

_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE


class RefusedError(pickle.UnpicklingError):
    """The pickle asks for something that is not admitted, or not there; it may be sound all the same.

    Args:
        what: what happened.
        wanting: whether all that is wanting is that its class be named as one that is admitted.
    """

    def __init__(self, what: str, *, wanting: bool = False) -> None:
        super().__init__(what)
        self.wanting = wanting


def is_of_py2(file: BinaryIO) -> bool:
    """Whether the pickle in `file` is one of Python 2, as n6 tells it: under Python 3 it never wrote protocol
    2 or older."""
    begin = file.tell()
    first = file.read(2)
    file.seek(begin)
    return first[:1] != b"\x80" or first[1:] <= b"\x02"


def opcodes(file: BinaryIO) -> Iterator[tuple[Any, Any, int | None]]:
    """What `pickletools.genops` finds from the file's position to the pickle's end, `(opcode, argument,
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


def load(file: BinaryIO, packages: Iterable[str] = (), classes: Iterable[str] = (), **py2_kwargs: str) -> Any:
    """The object that the pickle in `file` describes; reads up to its end.

    Args:
        file: open for reading; what follows the pickle in it stays unread.
        packages: top-level packages; every class defined in one of them is admitted.
        classes: further classes that are admitted, as `module.Class`.
        py2_kwargs: `encoding` and `errors`, as `pickle.load` takes them, for a pickle of Python 2. Unlike
            `pickle.load` this loads dates and decimals with any encoding.

    Raises:
        RefusedError: something is not admitted, or cannot be imported.
        StateError: a `str` of Python 2 cannot be decoded.
        Exception: the pickle is broken; what exactly is raised depends on how.
    """
    # With "bytes" dates load, and what was `str` can be told from what was `unicode`.
    unpickler = _Unpickler(file, packages, classes, encoding="bytes" if py2_kwargs else "ASCII")
    try:
        loaded = unpickler.load()
    finally:
        unpickler.undo_changes_to_classes()
    if not py2_kwargs or py2_kwargs.get("encoding") == "bytes":
        return loaded
    try:
        return _decoded(loaded, py2_kwargs.get("encoding", "ASCII"), py2_kwargs.get("errors", "strict"), {})
    except RecursionError as exc:
        raise StateError("a state of Python 2 is too deep to be decoded; the file stays as it is") from exc
    except (UnicodeDecodeError, LookupError) as exc:
        raise StateError(
            f"a str of Python 2 cannot be decoded: {exc}; nothing was published and the file stays as it is; "
            "get_py2_pickle_load_kwargs() says how to decode it"
        ) from exc


def _is_admitted(module: str, name: str, packages: frozenset[str], classes: frozenset[str]) -> bool:
    return (module, name) in _PLAIN or f"{module}.{name}" in classes or module.partition(".")[0] in packages


def _not_admitted(module: str, name: str) -> RefusedError:
    return RefusedError(f"the class {module}.{name} is not admitted", wanting=True)


def _as_of_today(module: str, name: str) -> tuple[str, str]:
    module = _RENAMED_MODULES.get(module, module)
    return _RENAMED.get((module, name), (module, name))


class Pickler(pickle.Pickler):
    """Refuses to write what `load`, with the same packages and classes, would refuse to read.

    Args:
        file: what has a method `write(bytes)`.
        protocol: as `pickle.Pickler` takes it.
        packages: as `load` takes them.
        classes: as `load` takes them.
    """

    def __init__(self, file: Any, protocol: int, packages: Iterable[str], classes: Iterable[str]) -> None:
        super().__init__(file, protocol, fix_imports=False)
        self._protocol = protocol if protocol >= 0 else pickle.HIGHEST_PROTOCOL
        self._packages = frozenset(packages)
        self._classes = frozenset(classes)
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
            module, name = _as_of_today(module, name)
            admitted = _is_admitted(module, name, self._packages, self._classes)
            if (module, name) not in _HELPERS and not (admitted and isinstance(obj, type)):
                if isinstance(obj, type):
                    raise _not_admitted(module, name)
                raise RefusedError(f"{module}.{name} is not a class")
            if "." in name and self._protocol < 4:  # would be written as a call of getattr
                raise RefusedError(f"{module}.{name} is a class in a class: set pickle_protocol = 4")
        elif reduced[0] is getattr:
            _getattr(*reduced[1])
        else:
            self._met.add(kind)
        return NotImplemented

    def _reduced(self, obj: Any) -> Any:
        reduce = dispatch_table.get(type(obj))
        return reduce(obj) if reduce else obj.__reduce_ex__(self._protocol)


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, file: BinaryIO, packages: Iterable[str], classes: Iterable[str], encoding: str
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._packages = frozenset(packages)
        self._classes = frozenset(classes)
        self._py2 = encoding == "bytes"
        self._before: dict[type, dict[str, Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        module, name = _as_of_today(module, name)
        if (module, name) in _HELPERS:
            return _HELPERS[module, name]
        if (module, name) in _PLAIN:
            found = self._watched(_resolve(module, name))
            return _of_py2(found) if self._py2 else found
        if not _is_admitted(module, name, self._packages, self._classes):
            raise _not_admitted(module, name)
        found = _resolve(module, name)
        # Not a function (a call of it could do anything), not a name that a module only imports.
        if not isinstance(found, type) or (found.__module__, found.__qualname__) != (module, name):
            raise RefusedError(f"{module}.{name} is not a class defined in {module}")
        return self._watched(found)

    def _watched(self, cls: type) -> type:
        if not cls.__flags__ & _IMMUTABLE_TYPE:
            self._before.setdefault(cls, dict(vars(cls)))
        return cls

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedError("a persistent id is not admitted")

    def undo_changes_to_classes(self) -> None:
        """Raise if the pickle has set attributes of a class (BUILD can), after taking that back."""
        changed = [cls for cls, before in self._before.items() if dict(vars(cls)) != before]
        for cls in changed:
            before = self._before[cls]
            for name in set(vars(cls)) - set(before):
                delattr(cls, name)
            for name, value in before.items():
                if vars(cls).get(name) is not value:
                    setattr(cls, name, value)
        if changed:
            raise RefusedError(f"it tried to change the class {changed[0].__module__}.{changed[0].__name__}")


def _resolve(module: str, name: str) -> Any:
    if module.endswith(".__main__") and module not in sys.modules:
        raise RefusedError(f"the class {module}.{name} cannot be imported (that would run a program)")
    try:
        found: Any = sys.modules.get(module) or import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as exc:  # a module may raise anything
        raise RefusedError(
            f"the class {module}.{name} cannot be imported ({type(exc).__name__}: {exc})"
        ) from exc
    return found


# Functions that pickles of old protocols call, in versions that can do no more than they are meant for.


def _reconstructor(cls: Any, base: Any, state: Any) -> Any:
    if not isinstance(cls, type) or not isinstance(base, type) or not issubclass(cls, base):
        raise RefusedError("copyreg._reconstructor is admitted for classes only")
    made: Any = base.__new__
    return made(cls) if base is object else made(cls, state)


def _newobj(cls: Any, *args: Any) -> Any:
    if not isinstance(cls, type):
        raise RefusedError("copyreg.__newobj__ is admitted for classes only")
    return cls.__new__(cls, *args)


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedError("_codecs.encode is admitted for latin1 only")
    return text.encode("latin1")


def _getattr(found: Any, name: Any) -> Any:
    # How zoneinfo has itself pickled.
    if getattr(found, "__module__", "") == "zoneinfo" and name == "_unpickle":
        return found._unpickle
    raise RefusedError("builtins.getattr is not admitted")


_HELPERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("copyreg", "_reconstructor"): _reconstructor,
    ("copyreg", "__newobj__"): _newobj,
    ("_codecs", "encode"): _encode,
    ("builtins", "getattr"): _getattr,
}


# Python 2


def _of_py2(cls: Any) -> Any:
    """What takes the place of a plain class whose pickles by Python 2 hold a `str` that it has to have."""

    def text(item: Any) -> Any:
        return item.decode("ascii") if isinstance(item, bytes) else item

    if cls.__name__ in ("Decimal", "Fraction", "bytearray"):
        return lambda *args: cls(*map(text, args))
    if cls.__name__ == "UUID":

        class OfPy2(cls):  # type: ignore[misc]
            __slots__ = ()

            def __setstate__(self, state: dict[Any, Any]) -> None:
                super().__setstate__({text(name): value for name, value in state.items()})
                object.__setattr__(self, "__class__", cls)

        return OfPy2
    return cls


def _decoded(found: Any, encoding: str, errors: str, done: dict[int, Any]) -> Any:
    """`found` with every bytes in it decoded: they were Python 2's `str`."""
    if id(found) in done:
        return done[id(found)]

    def deeper(item: Any) -> Any:
        return _decoded(item, encoding, errors, done)

    if isinstance(found, bytes):
        return found.decode(encoding, errors)
    if isinstance(found, tuple):
        items = tuple(map(deeper, found))
        same = all(map(operator.is_, items, found))
        return found if same else tuple.__new__(type(found), items)
    if isinstance(found, frozenset):
        return type(found)(map(deeper, found))
    done[id(found)] = found
    if isinstance(found, dict):
        pairs = [(deeper(key), deeper(value)) for key, value in found.items()]
        found.clear()
        for key, value in pairs:  # Counter.update would count them
            found[key] = value
    elif isinstance(found, (list, deque)):
        items = tuple(map(deeper, found))
        found.clear()
        found.extend(items)
    elif isinstance(found, set):
        items = tuple(map(deeper, found))
        found.clear()
        found.update(items)
    if hasattr(found, "__dict__") and not isinstance(found, type):
        deeper(vars(found))
    return found


# For looking at a state whose classes are not there


class StandIn:
    """An object of a class that was not looked for: what it was made from, and nothing more."""

    name = "?"

    def __new__(cls, *args: Any, **kwargs: Any) -> StandIn:
        made = super().__new__(cls)
        made.contents.extend(args)
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take anything."""

    @property
    def contents(self) -> list[Any]:
        """What it was made from."""
        found: list[Any] = vars(self).setdefault("contents", [])
        return found

    def __setstate__(self, state: Any) -> None:
        self.contents.append(state)

    def append(self, item: Any) -> None:
        """What a list would do, called by pickles of such classes."""
        self.contents.append(item)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.contents.append((key, value))

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<{self.name}: {', '.join(map(repr, self.contents))}>"


class _LookingUnpickler(_Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstructor" and module in ("copyreg", "copy_reg"):
            return _look_at_reconstructed
        try:
            return super().find_class(module, name)
        except RefusedError:
            return type("StandIn", (StandIn,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        return f"<persistent id {pid!r}>"


def _look_at_reconstructed(cls: Any, base: Any, state: Any) -> Any:
    if isinstance(cls, type) and issubclass(cls, StandIn):
        return cls() if base is object else cls(state)
    return _reconstructor(cls, base, state)


def look(file: BinaryIO) -> Any:
    """The same as `load` for eyes only: every class that is not plain data becomes a `StandIn`, and none
    of the collector's own code is imported or called."""
    of_py2 = is_of_py2(file)
    unpickler = _LookingUnpickler(file, (), (), encoding="bytes" if of_py2 else "ASCII")
    try:
        loaded = unpickler.load()
    finally:
        unpickler.undo_changes_to_classes()
    return _decoded(loaded, **LOSSLESS, done={}) if of_py2 else loaded
