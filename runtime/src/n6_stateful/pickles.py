"""What may come out of a pickle, and so go into one: plain data and the collector's own classes.

A pickle is a program that may call whatever it can name. `StateUnpickler` lets it name data types only, so
that loading a state (from a backup, a shared disk, a database) never runs code from it. The mechanism is the
documented one: https://docs.python.org/3/library/pickle.html#restricting-globals
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from n6_stateful.errors import StateError

PLAIN_CLASSES = {
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple",
    "collections": "Counter OrderedDict defaultdict deque",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "ipaddress": "IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network",
    "time": "struct_time",
    "uuid": "SafeUUID UUID",
}
_PLAIN = frozenset((module, name) for module, names in PLAIN_CLASSES.items() for name in names.split())
_BUILTINS_OF_PYTHON_2 = {"long": "int", "unicode": "str", "xrange": "range"}
_MODULES_OF_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class NotAllowedError(StateError):
    """A pickle is intact, but names a class that is not allowed, or that cannot be imported any more."""


class AllowList(NamedTuple):
    """Which classes a state may hold beside plain data.

    Attributes:
        package: the collector's top-level package: every class defined in it is allowed.
        classes: further classes, or their names as `module.Class`.
    """

    package: str = ""
    classes: Sequence[type | str] = ()

    def allows(self, module: str, name: str) -> bool:
        """Whether a pickle may name this; `StateUnpickler` still refuses it if it is not a class."""
        package, *inner = module.split(".")
        names = [
            cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}" for cls in self.classes
        ]
        # To import a program would run it.
        return (package == self.package and "__main__" not in inner) or f"{module}.{name}" in names


class StateUnpickler(pickle.Unpickler):
    """Loads a state; raises `NotAllowedError` for a class that `allow_list` does not allow."""

    def __init__(self, data: bytes, allow_list: AllowList, **py2_kwargs: Any) -> None:
        super().__init__(io.BytesIO(data), **py2_kwargs)
        self._allow_list = allow_list

    def find_class(self, module: str, name: str) -> Any:
        """The class that the pickle names; called by `load`."""
        module = _MODULES_OF_PYTHON_2.get(module, module)
        name = _BUILTINS_OF_PYTHON_2.get(name, name) if module == "builtins" else name
        if (module, name) == ("_codecs", "encode"):  # how protocols 0 to 2 hold bytes
            return _encode_latin1
        if (module, name) in _PLAIN or (module, name) == ("copyreg", "_reconstructor"):
            return super().find_class(module, name)
        if not self._allow_list.allows(module, name):
            raise NotAllowedError(
                f"the class {module}.{name} is not allowed in a state; if it is one of yours, name it in the "
                f'collector\'s state_classes = ["{module}.{name}"]'
            )
        try:
            named = super().find_class(module, name)
        except (Exception, SystemExit) as exc:  # a module may raise anything
            raise NotAllowedError(f"the class {module}.{name} cannot be imported: {exc}") from exc
        # Not a function, which could do anything, nor a name that the module only imports.
        if not isinstance(named, type) or (named.__module__, named.__qualname__) != (module, name):
            raise NotAllowedError(f"{module}.{name} is not a class defined in {module}")
        return named


def load(data: bytes, allow_list: AllowList, py2_kwargs: Mapping[str, Any] = {}) -> Any:
    """The object in a pickle.

    Args:
        data: the pickle.
        allow_list: which classes it may name beside plain data.
        py2_kwargs: for a pickle of Python 2, `encoding` and `errors` as `pickle.load` takes them. Where a
            date makes them fail, latin1 is tried, in which Python 2's dates are.

    Raises:
        NotAllowedError: the pickle names something that is not allowed, or cannot be imported.
        Exception: the pickle is damaged; what is raised depends on how.
    """
    try:
        return StateUnpickler(data, allow_list, **py2_kwargs).load()
    except (UnicodeError, TypeError, ValueError):  # without `str` of Python 2, raises the same again
        return StateUnpickler(data, allow_list, encoding="latin1").load()


def dump(state: Any, protocol: int, allow_list: AllowList) -> bytes:
    """The pickle of `state`, if `load` would load it.

    Raises:
        StateError: it cannot be pickled, or names a class that is not allowed.
    """
    try:
        data = pickle.dumps(state, protocol)
        load(data, allow_list)
    except Exception as exc:  # pickling calls methods of any object
        known = isinstance(exc, StateError)
        text = str(exc) if known else f"the state cannot be pickled: {type(exc).__name__}: {exc}"
        raise StateError(f"{text}; nothing was saved, and nothing was published") from exc
    return data


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise NotAllowedError(f"the pickle wants to encode text as {encoding!r}")
    return text.encode("latin1")
