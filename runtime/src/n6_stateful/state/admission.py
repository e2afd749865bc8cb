"""Which classes a pickle may name: plain data, the collector's own, and those it admits."""

from __future__ import annotations

import sys
from collections.abc import Set
from importlib import import_module
from typing import Any

from n6_stateful.errors import StateError

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
PLAIN = frozenset((module, name) for module, names in PLAIN_CLASSES.items() for name in names.split())

# Other names under which pickles have them: of Python 2, and of other versions of Python 3.
_RENAMED_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "pathlib._local": "pathlib"}
_RENAMED = {
    ("builtins", "long"): ("builtins", "int"),
    ("builtins", "unicode"): ("builtins", "str"),
    ("builtins", "xrange"): ("builtins", "range"),
}


class RefusedError(StateError):
    """The pickle asks for something that is not admitted, or not there; it may be sound all the same."""


class Admission:
    """
    Args:
        packages: top-level packages; every class defined in one of them is admitted.
        classes: further classes that are admitted, as `module.Class`.
    """

    def __init__(self, packages: Set[str] = frozenset(), classes: Set[str] = frozenset()) -> None:
        self._packages = packages
        self._classes = classes

    def check(self, module: str, name: str) -> None:
        """Raise `RefusedError` if the class is not admitted."""
        if (module, name) in PLAIN:
            return
        parts = module.split(".")
        if f"{module}.{name}" not in self._classes and parts[0] not in self._packages:
            raise RefusedError(
                f"the class {module}.{name} is not admitted; if it is one of yours, name it in the "
                f'collector\'s state_classes = ["{module}.{name}"]'
            )
        # The __main__ of a package is a program: to import it would be to run it.
        if ("__main__" in parts and module != "__main__") or not all(map(str.isidentifier, parts)):
            raise RefusedError(f"the class {module}.{name} cannot be imported (that would run a program)")

    def find(self, module: str, name: str) -> type:
        """The class that is called so; `RefusedError` if it is not admitted or cannot be imported."""
        self.check(module, name)
        try:
            found: Any = sys.modules.get(module) or import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (Exception, SystemExit) as exc:  # a module may raise anything
            raise RefusedError(
                f"the class {module}.{name} cannot be imported ({type(exc).__name__}: {exc})"
            ) from exc
        # Not a function (a call of it could do anything), not a name that a module only imports.
        defined_there = isinstance(found, type) and (found.__module__, found.__qualname__) == (module, name)
        if defined_there or (module, name) in PLAIN:
            return found  # type: ignore[no-any-return]
        raise RefusedError(f"{module}.{name} is not a class defined in {module}")


def as_of_today(module: str, name: str) -> tuple[str, str]:
    """The name that a class has in this version of Python."""
    module = _RENAMED_MODULES.get(module, module)
    return _RENAMED.get((module, name), (module, name))
