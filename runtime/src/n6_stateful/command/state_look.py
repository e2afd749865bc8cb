"""A state for eyes only: none of the collector's classes is needed, imported or called."""

from __future__ import annotations

from typing import Any, BinaryIO

from n6_stateful.state.admission import Admission, RefusedError
from n6_stateful.state.pickles import LOSSLESS, is_of_py2, load_with
from n6_stateful.state.unpickler import HELPERS, CarefulUnpickler


def look(file: BinaryIO) -> Any:
    """What `n6_stateful.state.pickles.load` gives, but that each class that is not plain data is a
    `StandIn`."""
    of_py2 = is_of_py2(file)
    kwargs = LOSSLESS if of_py2 else {}
    return load_with(lambda file: _LookingUnpickler(file, Admission(), **kwargs), file, of_py2)


class StandIn:
    """An object of a class that was not looked for: what it was made from, and nothing more."""

    name: str
    contents: list[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> StandIn:
        """Keep what it was made from."""
        made = super().__new__(cls)
        made.contents = list(args)
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take anything."""

    def __setstate__(self, state: Any) -> None:
        self.contents.append(state)

    # What a list or a set would do, called by pickles of such classes.
    append = add = __setstate__

    def __setitem__(self, key: Any, value: Any) -> None:
        self.contents.append((key, value))

    def __repr__(self) -> str:
        return f"<{self.name}: {', '.join(map(repr, self.contents))}>"


class _Reconstructed:
    """Called in the place of `copyreg._reconstructor`."""

    def __new__(cls, made: Any, base: Any, state: Any) -> Any:
        if isinstance(made, type) and issubclass(made, StandIn):
            return made() if base is object else made(state)
        return HELPERS["copyreg", "_reconstructor"](made, base, state)


class _LookingUnpickler(CarefulUnpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstructor" and module in ("copyreg", "copy_reg"):
            return _Reconstructed
        try:
            return super().find_class(module, name)
        except RefusedError:
            return type("StandIn", (StandIn,), {"name": ascii(f"{module}.{name}")[1:-1]})

    def persistent_load(self, pid: Any) -> Any:
        return f"<persistent id {pid!r}>"
