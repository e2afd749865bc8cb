"""The careful unpickler: it sees each step of a pickle that calls a class or changes an object."""

from __future__ import annotations

import enum
import pickle
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import timedelta, tzinfo
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any, BinaryIO, ClassVar

from n6_stateful.errors import StateError
from n6_stateful.state.admission import PLAIN, Admission, RefusedError, as_of_today

# How many tuples may be in one another. Hashing goes down through them in C without looking at the stack, and
# through classes of the collector's own in between as often as Python's recursion limit allows.
MOST_NESTED = 50

# What many share: no pickle may change it.
_SHARED = (type, FunctionType, MethodType, BuiltinFunctionType, enum.Enum)

# What plain classes may be called with. Not with classes, whose functions they might call: UUID(Path) calls
# Path.replace, and renames a file. Not with what stands for more than the pickle holds, as a range or a
# network does for all that is in it.
_CONTAINERS = (list, tuple, set, frozenset, dict, deque)
_DATA = (NoneType, int, float, str, bytes, bytearray, tzinfo, timedelta, *_CONTAINERS)
# And what some of them may not: bytes(10**12); str() of a list that holds a list twice, which holds a list
# twice...; a slice, which hashes as a tuple does.
_BUT: dict[type, Any] = {bytes: int, bytearray: int, str: _CONTAINERS, slice: _CONTAINERS}


def _check_arguments(cls: Any, args: Any) -> None:
    """Raise unless `cls` may be called with these."""
    if not isinstance(cls, type) or issubclass(cls, type):
        raise RefusedError(f"a {type(cls).__name__} may not be called")
    if isinstance(cls, enum.EnumMeta) and len(args) != 1:
        raise RefusedError(f"{cls.__qualname__} may be called with the value of a member only")
    base: Any
    for base in cls.__mro__:
        # A class with a constructor of its own is the collector's, and is trusted.
        if (base.__module__, base.__qualname__) in PLAIN and _constructor(cls) == _constructor(base):
            for arg in args:
                allowed = (*_DATA, type) if base is defaultdict else _DATA
                exponent = base.__name__ == "Fraction" and isinstance(arg, str) and "e" in arg.lower()
                if not isinstance(arg, allowed) or isinstance(arg, _BUT.get(base, ())) or exponent:
                    raise RefusedError(f"{base.__name__} may not be called with such a {type(arg).__name__}")
            return


def _constructor(cls: Any) -> tuple[Any, Any]:
    return cls.__new__, cls.__init__


# Functions that pickles name, in versions that can do no more than they are meant for.


def _reconstructor(cls: Any, base: Any, state: Any) -> Any:
    if not isinstance(cls, type) or not isinstance(base, type) or not issubclass(cls, base):
        raise RefusedError("copyreg._reconstructor is admitted for classes only")
    new, initialize = _constructor(base)
    if base is object:
        return new(cls)
    _check_arguments(base, (state,))
    made = new(cls, state)
    initialize(made, state)
    return made


def _newobj(cls: Any, *args: Any, **kwargs: Any) -> Any:
    _check_arguments(cls, (*args, *kwargs.values()))
    return cls.__new__(cls, *args, **kwargs)


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedError("_codecs.encode is admitted for latin1 only")
    return text.encode("latin1")


def _getattr(found: Any, name: Any) -> Any:
    # How zoneinfo has itself pickled.
    if isinstance(found, type) and found.__module__ == "zoneinfo" and name == "_unpickle":
        return _unpickle_zone
    raise RefusedError("builtins.getattr is not admitted")


def _unpickle_zone(key: str, from_cache: Any) -> Any:
    from zoneinfo import ZoneInfo

    return ZoneInfo(key) if from_cache else ZoneInfo.no_cache(key)


HELPERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("copyreg", "_reconstructor"): _reconstructor,
    ("copyreg", "__newobj__"): _newobj,
    ("_codecs", "encode"): _encode,
    ("builtins", "getattr"): _getattr,
}
_CALLABLE = (*HELPERS.values(), _unpickle_zone)


def _changing(opcode: bytes, depth: int) -> Callable[[Any], None]:
    """What loads an opcode that changes the object `depth` below the stack's top; 0: below the mark."""
    load: Any = pickle._Unpickler.dispatch[opcode[0]]

    def load_changing(self: CarefulUnpickler) -> None:
        target = self.stack[-depth] if depth else self.metastack[-1][-1]
        if isinstance(target, _SHARED):
            name = getattr(target, "__qualname__", type(target).__qualname__)
            raise RefusedError(f"it tried to change {target.__module__}.{name}, which others share")
        load(self)

    return load_changing


def _nesting(opcode: bytes) -> Callable[[Any], None]:
    load: Any = pickle._Unpickler.dispatch[opcode[0]]

    def load_nesting(self: CarefulUnpickler) -> None:
        load(self)
        self.check_depth(self.stack[-1])

    return load_nesting


# The private class: the public one, written in C, can be stopped only where it looks up a name. This one is
# what the public one falls back to, has been the same for years, and has a table of its steps to override.
class CarefulUnpickler(pickle._Unpickler):
    """
    Args:
        file: open for reading; what follows the pickle in it stays unread.
        admission: which classes are admitted beside plain data.
        encoding: for the `str` of Python 2, as `pickle.load` takes it, but that dates load with any.
        errors: the same.
    """

    read: Callable[[int], bytes]
    stack: list[Any]
    metastack: list[list[Any]]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        **{code[0]: _nesting(code) for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)},
        **{code[0]: _changing(code, 2) for code in (pickle.BUILD, pickle.APPEND)},
        **{code[0]: _changing(code, 0) for code in (pickle.APPENDS, pickle.SETITEMS, pickle.ADDITEMS)},
        pickle.SETITEM[0]: _changing(pickle.SETITEM, 3),
    }

    def __init__(
        self, file: BinaryIO, admission: Admission, *, encoding: str = "ASCII", errors: str = "strict"
    ) -> None:
        super().__init__(file)
        self._admission = admission
        self._encoding = encoding
        self._errors = errors
        # By id: the object itself, lest another take its id, and what is known about it.
        self._depths: dict[int, tuple[Any, int]] = {}
        self._bytes_of_texts: dict[int, tuple[Any, bytes]] = {}
        self._undecoded: dict[int, UnicodeDecodeError] = {}

    def load(self) -> Any:
        """The object that the pickle describes.

        Raises:
            RefusedError: it asks for what is not admitted.
            StateError: a `str` of Python 2 cannot be decoded.
            Exception: it is broken; what exactly is raised depends on how.
        """
        loaded = super().load()
        for exc in self._undecoded.values():
            raise _cannot_decode(exc) from exc
        return loaded

    def find_class(self, module: str, name: str) -> Any:
        """The class or the helper that is called so."""
        module, name = as_of_today(module, name)
        return HELPERS.get((module, name)) or self._admission.find(module, name)

    def get_extension(self, code: int) -> None:
        """There are none."""
        raise RefusedError("an extension code is not admitted")

    def check_depth(self, found: Any) -> None:
        """Raise if too many tuples are in one another."""
        tuples = (self._depths.get(id(each), (each, 1)) for each in found if isinstance(each, tuple))
        depth = max((depth for _, depth in tuples), default=0)
        if depth >= MOST_NESTED:
            raise RefusedError(f"more than {MOST_NESTED} tuples are in one another")
        if depth:
            self._depths[id(found)] = found, depth + 1

    def _call(self, function: Any, *args: Any, **kwargs: Any) -> None:
        if not any(function is each for each in _CALLABLE):
            _check_arguments(function, args)
            if function.__module__ == "datetime":
                args = tuple(map(self._as_bytes, args))
        made = function(*args, **kwargs)
        if isinstance(made, tuple):
            self.check_depth(made)
        self.stack.append(made)

    def _load_reduce(self) -> None:
        args = self.stack.pop()
        self._call(self.stack.pop(), *args)

    def _load_newobj(self) -> None:
        args = self.stack.pop()
        self._call(_newobj, self.stack.pop(), *args)

    def _load_newobj_ex(self) -> None:
        kwargs, args = self.stack.pop(), self.stack.pop()
        self._call(_newobj, self.stack.pop(), *args, **kwargs)

    def _instantiate(self, cls: Any, args: Any) -> None:
        self._call(*(cls, *args) if args else (_newobj, cls))

    def _load_bytearray8(self) -> None:
        # Python's own makes room for as much as it says, before it looks whether there is as much.
        self.stack.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    dispatch |= {
        pickle.BYTEARRAY8[0]: _load_bytearray8,
        pickle.REDUCE[0]: _load_reduce,
        pickle.NEWOBJ[0]: _load_newobj,
        pickle.NEWOBJ_EX[0]: _load_newobj_ex,
    }

    # Python 2

    def _decode_string(self, value: bytes) -> Any:
        # A date needs the bytes. Whether these are one's only the next steps tell.
        text: Any = value
        try:
            text = value.decode(self._encoding, self._errors)
        except UnicodeDecodeError as exc:
            self._undecoded[id(value)] = exc
        except LookupError as exc:
            raise _cannot_decode(exc) from exc
        self._bytes_of_texts[id(text)] = text, value
        return text

    def _as_bytes(self, text: Any) -> Any:
        self._undecoded.pop(id(text), None)
        return self._bytes_of_texts.get(id(text), (text, text))[1]


def _cannot_decode(exc: Exception) -> StateError:
    return StateError(
        f"a str of Python 2 cannot be decoded: {exc}; it stays as it is; "
        "get_py2_pickle_load_kwargs() says how to decode it"
    )
