"""`CollectorWithStateMixin`: what a collector remembers between its runs.

The names and the file's name are those of n6's mixin
(https://n6.readthedocs.io/guides/new_source/collectors/state/).
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol, runtime_checkable

from n6_stateful import settings
from n6_stateful.errors import CollectorError, ConfigError, StateError, StateLockedError
from n6_stateful.state.admission import Admission
from n6_stateful.state.file import FileStore
from n6_stateful.state.format import read_state
from n6_stateful.state.pickles import LOSSLESS, Pickler, is_of_py2, load
from n6_stateful.state.store import BrokenStateError, Generation, StateStore

LOGGER = logging.getLogger(__name__)


@runtime_checkable
class Publisher(Protocol):
    """What the mixin asks of a base that publishes, as `QueuedBase` does. Other bases need not have it: the
    mixin goes over any base, so it does not know `QueuedBase`, which stands above it."""

    published_count: int

    def flush_output(self) -> None:
        """Return when everything published so far has durably arrived."""


class CollectorWithStateMixin:
    """Gives a collector `load_state` and `save_state`; put it before the base class.

    It works over any base that has, once its `__init__` has run, a mapping `config` with `cache_dir`, and
    the methods `get_source_channel` and `get_source`.

    Attributes:
        state: the state in hand, by the guide's convention `self.state = self.load_state()`. If it is set,
            it must pickle before the first message of a run is published.
        state_classes: classes, or their `"module.Class"` names, that a state may hold beside plain data
            and classes of the collector's own package.
        pickle_protocol: of the states that are saved.
        state_store: where the state is kept.
        loaded_generation: id of the generation that was loaded; empty as long as there is none.
        state_generation: id of the current generation, the one that was loaded or saved last; empty as
            long as there is none.
        state_generations: the ids of the generations that a later run may start from, that one first.

    Raises:
        ConfigError: from the constructor, if `cache_dir` or `broken_state` has a wrong value.
    """

    extra_config_options = """
        ; what to do with a state that is broken, if there is no good one before it:
        ; `default` goes on with make_default_state(), `fail` ends each run until a person has come
        broken_state = default :: str
    """
    extra_config_specs: Sequence[str] = (
        """
        [state]
        ; the database that keeps the state: postgresql://USER:PASSWORD@HOST/DATABASE or mysql://...;
        ; without one it is a file in cache_dir
        url = :: str
        ; a file that holds that URL, as a Kubernetes secret is mounted
        url_file = :: str
        ; how many seconds the database may take to answer; a run that has lost its connection tries for
        ; twice as long to get another one
        timeout = 30 :: float
        """,
    )
    state: Any = None
    state_classes: ClassVar[Sequence[type | str]] = ()
    pickle_protocol = pickle.HIGHEST_PROTOCOL

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loaded_generation = ""
        self.state_generation = ""
        self.state_generations: tuple[str, ...] = ("",)
        self._state_number = 0
        self._state_loaded = False
        self._published_before = 0
        self._broken_state = self._base.config.get("broken_state", "default")
        if self._broken_state not in ("default", "fail"):
            raise ConfigError(f"broken_state = {self._broken_state}: must be 'default' or 'fail'")
        self.state_store = self.make_state_store()

    # For the collector to call

    def load_state(self) -> Any:
        """The state as it was saved last, or `make_default_state()` if there is none.

        From here on no other run of this collector can load it, until this process ends. That a state can be
        saved is proven first, since what is published by a run that cannot save is published again.

        A broken generation is set aside and the one before it takes its place; if there is none that is
        good, `broken_state` decides. A line in the log says so.

        Raises:
            StateLockedError: another run is in progress.
            StateError: the state cannot be read, or could not be saved, or holds something that is not
                admitted.
        """
        try:
            return self._load_state()
        except StateLockedError:
            raise
        except StateError as exc:
            raise StateError(f"nothing was published: {exc}") from exc

    def save_state(self, state: Any) -> None:
        """Save an object that pickles; return only when it would survive a power cut.

        May be called any number of times in a run. Before anything is written, everything published so
        far must have arrived, so the state never runs ahead of the data. A dry run only tries whether
        the state pickles.

        Raises:
            CollectorError: `load_state` was not called before.
            PublishError: not everything has arrived; the state stays as it was.
            StateError: it cannot be pickled or written, or holds what `load_state` would not admit; the
                state stays as it was.
        """
        self._check_loaded("save_state() was called before load_state(), nothing was saved")
        something_new = True
        if isinstance(self, Publisher):
            self.state_store.lock()  # if that was lost, there is no use in waiting for the output
            self.flush_output()
            something_new = self.published_count != self._published_before
        if settings.current().dry_run:
            self._dump(state)
            LOGGER.debug("dry run: the state was not saved")  # the run's closing line says so
            return
        # What n6 has left is worth keeping too, and so is the only one to fall back to.
        worth_keeping = something_new or "" in self.state_generations
        self.save_as_new(state, self._state_number + 1, keep_previous=worth_keeping)

    def save_as_new(self, state: Any, number: int, *, keep_previous: bool = True) -> None:
        """Save `state` as generation `number`, whatever is current and whatever is being published.

        Raises:
            StateLockedError: another run is in progress.
            StateError: it cannot be pickled or written; the state stays as it was.
        """
        self.check_state(state)
        self.state_store.lock()
        generation = self.state_store.write(
            lambda file: self._dump(state, file), number, keep_previous=keep_previous
        )
        self._set_current(generation)
        LOGGER.debug("saved the state to %s (%s)", generation.where, generation)

    def close_state(self) -> None:
        """Let other runs have the state; the end of the process does the same."""
        self.state_store.unlock()

    # For commands

    def read_state(self, generation: Generation | None = None) -> tuple[Any, Generation]:
        """The state of one of `state_store.generations()`, by default the current one, without taking the
        lock and without setting anything aside. For the errors see `StateStore.read`."""
        (state, of_py2), generation = self.state_store.read(self._load, generation)
        return self._adjusted(state, of_py2), generation

    def check_left_behind(self) -> None:
        """To be called where the store has no state: raises `StateError` if that is a database, and there is
        a state in `cache_dir`, which somebody forgot to take over."""
        if "cache_dir" not in self._base.config or isinstance(self.state_store, FileStore):
            return
        if os.path.isfile(path := self._state_path()):  # noqa: PTH113 - false, too, where nobody may look
            raise StateError(
                f"there is no state in {self.state_store.where}, but there is one in {path}: take it over "
                f"with `state import {path}`, or begin anew with `state reset`"
            )

    def import_state(self, where: str, file: BinaryIO) -> Any:
        """The state in a file from elsewhere, one of ours or a plain pickle; `where` is what errors call it.
        For the errors see `StateStore.read`."""
        (state, of_py2), _ = read_state(where, file, self._load)
        return self._adjusted(state, of_py2)

    # For the collector to override

    def make_default_state(self) -> Any:
        """The state to begin with."""
        return None

    def check_state(self, state: Any) -> None:
        """Called before a state is gone on from, or saved: raise `StateError` if it is none of this class."""

    def describe_state(self) -> str:
        """What `state` says about how far the source was taken, for the record of a run: by default the
        newest time or the cursor that it names, if it is a dict with the keys that the guide and the base
        classes use. It must hold no secret."""
        known = self.state if isinstance(self.state, dict) else {}
        found = [known[key] for key in ("last_utc", "newest_row_time", "cursor") if known.get(key)]
        return str(found[0]) if found else ""

    def make_state_store(self) -> StateStore:
        """The rows called `get_cache_file_name()` in the database of `[state] url`; without one, the file of
        that name in `cache_dir`.

        Raises:
            ConfigError: there cannot be such a database or file.
        """
        # Not every base has it: the mixin asks for no more than n6's does.
        options = getattr(self._base, "config_full", {}).get("state", {})
        if options.get("url") or options.get("url_file"):
            try:
                from n6_stateful.state.database import configured_store

                return configured_store(options, self.get_cache_file_name(), type(self))
            except ImportError as exc:
                from n6_stateful.extras import needs_extra

                raise needs_extra("[state] url", "sql", exc) from exc
        return FileStore(self._state_path())

    def _state_path(self) -> Path:
        config = self._base.config
        if "cache_dir" not in config:
            raise ConfigError(
                f"{type(self).__name__}.config_spec has no cache_dir, where the state goes: add to it\n"
                "    cache_dir :: path"
            )
        directory = Path(config["cache_dir"]).expanduser()
        if not directory.is_absolute():
            raise ConfigError(f"cache_dir = {directory}: must begin with / or ~")
        return directory / self.get_cache_file_name()

    def get_cache_file_name(self) -> str:
        """The state file's name, `<source>.<ClassName>.pickle`."""
        source = self._base.get_source(source_channel=self._base.get_source_channel())
        return f"{source}.{type(self).__name__}.pickle"

    def get_py2_pickle_load_kwargs(self) -> dict[str, str]:
        """How to decode the `str` in a state that n6 saved under Python 2: `encoding` and `errors`, as
        `pickle.load` takes them. The default loses no byte: what is not UTF-8 becomes surrogates, which
        `text.encode("utf-8", "surrogateescape")` turns back into what was there."""
        return dict(LOSSLESS)

    def adjust_state_from_py2_pickle(self, state: Any) -> Any:
        """Given a state that n6 saved under Python 2, the state to go on with."""
        return state

    # For the base class to call

    def get_output_owner(self) -> str:
        """The name under which an output keeps what it must remember about this collector."""
        return self.get_cache_file_name()

    def check_before_opening(self) -> None:
        """Called before a run opens its output, which is told the generations then.

        Raises:
            CollectorError: `load_state` was not called before.
        """
        self._check_loaded("run() was called before load_state(), nothing was published")

    def check_before_publishing(self) -> None:
        """Called before the first message of a run.

        Raises:
            StateError: `state` is set, and could not be saved.
        """
        if self.state is not None:
            self._dump(self.state)

    # How

    @property
    def _base(self) -> Any:
        """This object as the class that the mixin was put over."""
        return self

    def _check_loaded(self, problem: str) -> None:
        if not self._state_loaded:
            raise CollectorError(
                f"{type(self).__name__}: {problem}: call it first, for instance as "
                "self.state = self.load_state() before super().run()"
            )

    def _load_state(self) -> Any:
        store = self.state_store
        store.lock()
        broken: list[tuple[Generation, BrokenStateError]] = []
        found: tuple[Any, Generation] | None = None
        for generation in store.generations():
            try:
                found = self.read_state(generation)
                break
            except FileNotFoundError:
                break
            except BrokenStateError as exc:
                broken.append((generation, exc))
        if not found and not broken:
            self.check_left_behind()
        store.prove_writable()
        self._set_aside(broken, found is not None)
        self._set_current(found[1] if found else None)
        self.loaded_generation = self.state_generation
        if found:
            self.check_state(found[0])
            LOGGER.info("loaded the state from %s (%s)", found[1].where, found[1])
            return found[0]
        LOGGER.warning("there is no state in %s: beginning with the default state", store.where)
        return self.make_default_state()

    def _set_aside(self, broken: list[tuple[Generation, BrokenStateError]], found: bool) -> None:
        if found:
            outlook = "the state before it takes its place"
        else:
            outlook = "there is no good one before it: expect data that was taken already to be taken again"
        # The oldest first: what is set aside gives its place to the one before it.
        for generation, problem in reversed(broken):
            if self._broken_state == "fail" and not found:
                raise StateError(
                    f"{problem}; it was left as it is (broken_state = fail). "
                    "Look at it, then `state import` an older state or `state reset`"
                )
            where = (
                "dry run: it was left there"
                if settings.current().dry_run
                else f"it was moved to {self.state_store.set_aside(generation)}"
            )
            LOGGER.error("the state is broken: %s; %s; %s", problem, where, outlook)

    def _load(self, file: BinaryIO) -> tuple[Any, bool]:
        of_py2 = is_of_py2(file)
        kwargs = self.get_py2_pickle_load_kwargs() if of_py2 else {}
        return load(file, self._admission(), **kwargs), of_py2

    def _adjusted(self, state: Any, of_py2: bool) -> Any:
        # Apart from loading: a mistake in the hook is no fault of the pickle.
        if not of_py2:
            return state
        LOGGER.warning("the state was saved under Python 2; it is adjusted now")
        return self.adjust_state_from_py2_pickle(state)

    def _dump(self, state: Any, file: Any = None) -> None:
        """Pickle `state` into `file`; by default only try it."""
        # 0 and 1 have no head of their own: after the mark they would be read as 4.
        protocol = 2 if self.pickle_protocol in (0, 1) else self.pickle_protocol
        try:
            Pickler(file or _Nowhere(), protocol, self._admission()).dump(state)
        except OSError:
            raise
        except Exception as exc:  # a class's own __reduce__ may raise anything
            raise StateError(
                f"the state cannot be saved: {str(exc) or type(exc).__name__}; "
                f"the state in {self.state_store.where} is what it was"
            ) from exc

    def _admission(self) -> Admission:
        names = (
            cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"
            for cls in self.state_classes
        )
        package = type(self).__module__.partition(".")[0]
        return Admission({package} - {"n6_stateful", *sys.stdlib_module_names}, set(names))

    def _set_current(self, current: Generation | None) -> None:
        self._state_loaded = True
        self._published_before = self.published_count if isinstance(self, Publisher) else 0
        self._state_number = current.number if current else 0
        self.state_generation = current.id if current else ""
        # Should it be found broken one day, one of those before it becomes the current one, or none.
        kept = [each.id for each in self.state_store.generations() if each.number < self._state_number]
        self.state_generations = tuple(dict.fromkeys([self.state_generation, *(kept or [""])]))


class _Nowhere:
    """Takes a pickle that only needs to be tried."""

    def write(self, data: Any) -> int:
        """Take it."""
        return len(data)
