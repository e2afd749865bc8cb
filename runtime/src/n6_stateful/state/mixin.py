"""`CollectorWithStateMixin`: what a collector remembers between its runs.

The names and the file's name are those of n6's mixin
(https://n6.readthedocs.io/guides/new_source/collectors/state/).
"""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from n6_stateful import settings
from n6_stateful.errors import ConfigError, StateError
from n6_stateful.state.file import BrokenStateError, StateFile
from n6_stateful.state.pickles import LOSSLESS, Pickler, RefusedError, is_of_py2, load

if TYPE_CHECKING:
    from n6_stateful.state.file import Footer

LOGGER = logging.getLogger(__name__)


class CollectorWithStateMixin:
    """Gives a collector `load_state` and `save_state`; put it before the base class.

    It works over any base that has, once its `__init__` has run, a mapping `config` with `cache_dir`, and
    the methods `get_source_channel` and `get_source`.

    Attributes:
        state_classes: classes, or their `"module.Class"` names, that a state may hold beside plain data
            and classes of the collector's own package.
        pickle_protocol: of the states that are saved.
        state_generation: id of the generation in force, the one that was loaded or saved last; empty as
            long as there is none.
        state_generations: the ids of the generations that a later run may start from, that one first.

    Raises:
        ConfigError: from the constructor, if `cache_dir` or `broken_state` has a wrong value.
    """

    extra_config_options = """
        ; what to do with a state file that is broken, if there is no good one before it:
        ; `default` goes on with make_default_state(), `fail` ends each run until a person has come
        broken_state = default :: str
    """
    state_classes: ClassVar[Sequence[type | str]] = ()
    pickle_protocol = pickle.HIGHEST_PROTOCOL

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        config = self._base.config
        self.state_generation = ""
        self.state_generations: tuple[str, ...] = ("",)
        self._state_number = 0
        name = self.get_cache_file_name()
        if "cache_dir" not in config:
            raise ConfigError(
                f"{type(self).__name__}.config_spec has no cache_dir, where the state goes: add to it\n"
                "    cache_dir :: path"
            )
        directory = Path(config["cache_dir"]).expanduser()
        if not directory.is_absolute():
            raise ConfigError(f"cache_dir = {directory}: it has to begin with / or ~")
        if "/" in name:
            raise ConfigError(f"the state file's name would be {name!r}: a name cannot hold a slash")
        self._broken_state = config.get("broken_state", "default")
        if self._broken_state not in ("default", "fail"):
            raise ConfigError(f"broken_state = {self._broken_state}: neither default nor fail")
        self.state_file = StateFile(directory / name)

    # For the collector to call

    def load_state(self) -> Any:
        """The state as it was saved last, or `make_default_state()` if there is none.

        From here on no other run of this collector can load it, until this process ends.

        A broken file is moved aside and the state before it takes its place; if there is none that is
        good, `broken_state` decides. A line in the log says so.

        Raises:
            StateLockedError: another run is on its way.
            StateError: the state cannot be read, or holds something that is not admitted.
        """
        self.state_file.lock()
        broken: dict[Path, BrokenStateError] = {}
        for path in (self.state_file.path, self.state_file.previous):
            try:
                (state, of_py2), footer = self.state_file.read(self._load, path)
            except FileNotFoundError:
                if path == self.state_file.path:
                    break  # there is none, or somebody took it away so that we begin anew
            except BrokenStateError as exc:
                broken[path] = exc
            else:
                if broken:
                    self._set_aside(*broken.popitem(), instead=path)
                self._in_force(footer)
                LOGGER.info("loaded the state from %s (%s)", path, _described(footer))
                return self._adjusted(state) if of_py2 else state
        for path, problem in broken.items():
            self._set_aside(path, problem)
        self._in_force(None)
        LOGGER.warning("there is no state in %s: beginning with the default state", self.state_file.path)
        return self.make_default_state()

    def save_state(self, state: Any) -> None:
        """Save an object that pickles; return only when it would survive a power cut.

        May be called any number of times in a run. Before anything is written, everything published so
        far has to have arrived, so the state never runs ahead of the data.

        Raises:
            PublishError: not everything has arrived; the state stays as it was.
            StateError: it cannot be pickled or written, or holds what `load_state` would not admit; the
                state stays as it was.
        """
        flush_output = getattr(self, "flush_output", None)
        if flush_output is not None:
            flush_output()
        if settings.current().dry_run:
            LOGGER.info("dry run: the state was not saved")
            return
        self.save_as_new(state, self._state_number + 1)

    def save_as_new(self, state: Any, number: int) -> None:
        """Save `state` as generation `number`, whatever is in force and on its way.

        Raises:
            StateLockedError: another run is on its way.
            StateError: it cannot be pickled or written; the state stays as it was.
        """
        self.state_file.lock()

        # 0 and 1 have no head of their own: after the mark they would be read as 4.
        protocol = 2 if self.pickle_protocol in (0, 1) else self.pickle_protocol

        packages, classes = self._admitted()

        def dump(file: Any) -> None:
            try:
                Pickler(file, protocol, packages, classes).dump(state)
            except OSError:
                raise
            except MemoryError as exc:
                raise StateError(
                    f"{self.state_file.path}: there is not enough memory to pickle the state; "
                    "the state file is what it was"
                ) from exc
            except Exception as exc:  # a class's own __reduce__ may raise anything
                raise self._unpicklable(state, exc) from exc

        footer = self.state_file.write(dump, number)
        self._in_force(footer)
        LOGGER.info("saved the state to %s (%s)", self.state_file.path, _described(footer))

    def close_state(self) -> None:
        """Let other runs have the state; the end of the process does the same."""
        self.state_file.unlock()

    # For the collector to override

    def make_default_state(self) -> Any:
        """The state to begin with."""
        return None

    def get_cache_file_name(self) -> str:
        """The state file's name, `<source>.<ClassName>.pickle`."""
        source = self._base.get_source(source_channel=self._base.get_source_channel())
        return f"{source}.{type(self).__name__}.pickle"

    def get_py2_pickle_load_kwargs(self) -> dict[str, str]:
        """How to decode the `str` in a state that n6 saved under Python 2: `encoding` and `errors`, as
        `pickle.load` takes them. The default loses no byte: what is no UTF-8 becomes surrogates, which
        `text.encode("utf-8", "surrogateescape")` turns back into what was there."""
        return dict(LOSSLESS)

    def adjust_state_from_py2_pickle(self, state: Any) -> Any:
        """Given a state that n6 saved under Python 2, the state to go on with."""
        return state

    def get_output_owner(self) -> str:
        """The name under which an output keeps what it has to remember about this collector."""
        return self.get_cache_file_name()

    # How

    def _admitted(self) -> tuple[frozenset[str], list[str]]:
        return _own_packages(type(self)), [_full_name(cls) for cls in self.state_classes]

    def _unpicklable(self, state: Any, exc: Exception) -> StateError:
        import io

        from n6_stateful.state.culprit import culprit

        packages, classes = self._admitted()
        where = culprit(state, lambda item: Pickler(io.BytesIO(), 4, packages, classes).dump(item))
        if not isinstance(exc, RefusedError):
            return StateError(
                f"{self.state_file.path}: the state does not pickle: {where}: {exc}; "
                "the state file is what it was"
            )
        return StateError(
            f"{self.state_file.path}: the state could not be loaded again: {where}: {exc}; "
            f"the state file is what it was. Make plain data of it{self._how_to_admit(exc)}"
        )

    def _how_to_admit(self, exc: RefusedError) -> str:
        if not exc.wanting:
            return ""
        return (
            f"; or, if that is a class of yours, name it in {type(self).__name__}.state_classes, "
            'for instance state_classes = ["package.module.Class"]'
        )

    @property
    def _base(self) -> Any:
        """This object as the class that the mixin was put over."""
        return self

    def load_pickle(self, file: BinaryIO, name: str | None = None) -> Any:
        """What the pickle in `file` holds, one of n6 under Python 2 included.

        Args:
            file: a binary file.
            name: what to call it in an error; None for the state file.

        Raises:
            StateError: it holds something that is not admitted.
            Exception: it is broken.
        """
        state, of_py2 = self._load(file, name)
        return self._adjusted(state) if of_py2 else state

    def _load(self, file: BinaryIO, name: str | None = None) -> tuple[Any, bool]:
        packages, classes = self._admitted()
        of_py2 = is_of_py2(file)
        kwargs = self.get_py2_pickle_load_kwargs() if of_py2 else {}
        try:
            return load(file, packages, classes, **kwargs), of_py2
        except RefusedError as exc:
            outcome = (
                f"{self.state_file.path}: {exc}; nothing was published and the file stays as it is. "
                "Go back with `state restore`"
                if name is None
                else f"{name}: {exc}; nothing was changed"
            )
            raise StateError(outcome + self._how_to_admit(exc)) from exc

    def _adjusted(self, state: Any) -> Any:
        LOGGER.warning("the state was saved under Python 2; it is adjusted now")
        return self.adjust_state_from_py2_pickle(state)

    def _in_force(self, footer: Footer | None) -> None:
        self._state_number = footer.number if footer else 0
        self.state_generation = footer.generation if footer else ""
        # Should this file be found broken one day, the one before it comes into force, or none.
        before = self.state_file.peek(self.state_file.previous)
        fallback = before.generation if before else ""
        self.state_generations = tuple(dict.fromkeys([self.state_generation, fallback]))

    def _set_aside(self, path: Path, problem: BrokenStateError, instead: Path | None = None) -> None:
        if instead is None and self._broken_state == "fail":
            raise StateError(
                f"{problem}; nothing was published and the file was left as it is (broken_state = fail). "
                "Look at it, then `state import` an older state or `state reset`"
            ) from problem
        if settings.current().dry_run:
            where = "dry run: it was left there"
        else:
            where = f"it was moved to {self.state_file.set_aside(path, instead)}"
        outlook = (
            "the state before it takes its place"
            if instead
            else "there is no good one before it: expect data that was taken already to be taken again"
        )
        LOGGER.error("the state file is broken: %s; %s; %s", problem, where, outlook)


def _own_packages(cls: type) -> frozenset[str]:
    tops = {each.__module__.partition(".")[0] for each in cls.__mro__}
    return frozenset(tops - {"n6_stateful"} - sys.stdlib_module_names) | (tops & {"__main__"})


def _full_name(cls: type | str) -> str:
    return cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"


def _described(footer: Footer | None) -> str:
    return f"generation {footer.generation[:8]}, number {footer.number}" if footer else "a plain pickle"
