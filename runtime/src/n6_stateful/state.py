"""`CollectorWithStateMixin`: what a collector remembers between its runs, and the state file of n6.

The names and the file's name are those of n6's mixin
(https://n6.readthedocs.io/guides/new_source/collectors/state/).
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from n6_stateful import pickles, settings
from n6_stateful.errors import CollectorError, ConfigError, StateError
from n6_stateful.interruption import raise_if_interrupted
from n6_stateful.journal import JOURNAL_SPEC, CorruptError, DamagedError, Generation, Journal
from n6_stateful.publishing import WithJournal
from n6_stateful.state_file import StateFile

LOGGER = logging.getLogger(__name__)

# How to decode the `str` of Python 2 so that no byte is lost, as `pickle.load` takes it.
LOSSLESS = {"encoding": "utf-8", "errors": "surrogateescape"}


class Start(NamedTuple):
    """What a run begins with.

    Attributes:
        file: the state file.
        generation: the journal's generation, if the journal counts.
        pickle: of that generation, or else of the file; None for the default state.
    """

    file: StateFile
    generation: Generation | None = None
    pickle: bytes | None = None


class CollectorWithStateMixin(WithJournal):
    """Gives a collector `load_state` and `save_state`; put it before the base class.

    It works over any base that has, once its `__init__` has run, a mapping `config` with `cache_dir`, and
    the methods `get_source_channel` and `get_source`. Over a base that publishes, `save_state` commits what
    was published together with the state.

    Attributes:
        state: the current state, by the guide's convention `self.state = self.load_state()`.
        state_classes: classes, or their `"module.Class"` names, that a state may hold beside plain data
            and classes of the collector's own package.
        pickle_protocol: of the states that are saved.
        loaded_number: number of the generation that was loaded; 0 if there was none.
        state_number: number of the generation that was loaded or saved last; 0 if there is none.

    Raises:
        ConfigError: from the constructor, if `broken_state` has a wrong value.
    """

    extra_config_options = """
        ; what to do when neither the journal nor the state file has an intact state: `default` goes on with
        ; make_default_state(), `fail` stops every run until someone fixes the state
        broken_state = default :: str
    """
    extra_config_specs: Sequence[str] = (JOURNAL_SPEC,)
    # Of the base class.
    config: Any
    get_source: Any
    get_source_channel: Any

    is_stateful = True
    state: Any = None
    state_classes: ClassVar[Sequence[type | str]] = ()
    pickle_protocol = pickle.HIGHEST_PROTOCOL

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loaded_number = self.state_number = 0
        self.base_id = ""
        self._loaded: bytes | None = None  # the pickle of the state that the run began with
        self._run = ""
        self._file_is_damaged = False
        self._published_before = 0
        self._broken_state = self.config.get("broken_state", "default")
        if self._broken_state not in ("default", "fail"):
            raise ConfigError(f"broken_state = {self._broken_state}: must be 'default' or 'fail'")

    # For the collector to call

    def load_state(self) -> Any:
        """The state that was saved last, or `make_default_state()` if there is none.

        From here on no other run of this collector can begin, until `close_state` or the end of this process.
        A damaged generation is skipped, with an error in the log, and the one before it is used.

        Raises:
            StateLockedError: another run is in progress.
            StateError: the state cannot be read, or holds something that is not allowed.
        """
        if settings.current().dry_run:
            start = self._decide()
        else:
            self.open_journal()
            start = self._decide()
        number, data = (start.generation.number if start.generation else 0), start.pickle
        if data is None:
            self._check_may_begin_anew(start.file)
            LOGGER.warning("there is no state yet: beginning with the default state")
            state = self.make_default_state()
            self._loaded = self._dump(state)
        else:
            state = self._unpickle(data, start)
            self._loaded = data
            LOGGER.info("loaded the state %d", number)
        self.check_state(state)
        self._run = os.urandom(8).hex()
        self._published_before = getattr(self, "published_count", 0)
        self.loaded_number = number
        self._set_current(number, data or b"default")
        return state

    def save_state(self, state: Any) -> None:
        """Commit an object that pickles, together with what was published since the last commit; it would
        survive a power cut when this returns. Outside `start_publishing` it then delivers, too.

        May be called any number of times in a run. A dry run only tries whether the state pickles.

        Raises:
            CollectorError: `load_state` was not called before.
            StateError: it cannot be pickled or written, or holds what `load_state` would not allow. Nothing
                was saved, and nothing was published.
            KeyboardInterrupt, Terminated: the run was interrupted, and nothing more is committed.
        """
        if self._loaded is None:
            raise CollectorError(
                "save_state() was called before load_state(); nothing was saved or published"
            )
        data = self._dump(state)
        if settings.current().dry_run:
            return
        raise_if_interrupted()
        self._commit_state(data)

    def close_state(self) -> None:
        """Let other runs begin; the end of the process does the same."""
        self.journal.unlock()

    # For the collector to override

    def make_default_state(self) -> Any:
        """The state to begin with."""
        return None

    def check_state(self, state: Any) -> None:
        """Called before a state is used: raise `StateError` if it is not one of this class."""

    def describe_state(self) -> str:
        """How far the source was collected, for the record of a run, without secrets: by default the newest
        time or the cursor in `state`, if it is a dict with the keys of the guide and the base classes."""
        known = self.state if isinstance(self.state, dict) else {}
        values = [known.get(key) for key in ("last_utc", "newest_row_time", "cursor")]
        return next((str(value) for value in values if value and not isinstance(value, dict)), "")

    def get_cache_file_name(self) -> str:
        """The state file's name, `<source>.<ClassName>.pickle`; the journal's ends in `.sqlite`."""
        source = self.get_source(source_channel=self.get_source_channel())
        return f"{source}.{type(self).__name__}.pickle"

    def get_py2_pickle_load_kwargs(self) -> dict[str, str]:
        """How to decode the `str` in a state that n6 saved under Python 2: `encoding` and `errors`, as
        `pickle.load` takes them. The default loses no byte: what is not UTF-8 becomes surrogates, which
        `text.encode("utf-8", "surrogateescape")` turns back into what was there."""
        return dict(LOSSLESS)

    def adjust_state_from_py2_pickle(self, state: Any) -> Any:
        """Given a state that n6 saved under Python 2, the state to go on with."""
        return state

    # The journal

    def journal_path(self) -> Path:
        """Where the journal is, if it is a file: beside the state file."""
        config = self.config
        if "cache_dir" not in config:
            raise ConfigError(
                f"{type(self).__name__}.config_spec has no cache_dir, the directory of the journal and the "
                "state file; add to it:\n    cache_dir :: path"
            )
        directory = Path(config["cache_dir"]).expanduser()
        if not directory.is_absolute():
            raise ConfigError(f"cache_dir = {directory}: must begin with / or ~")
        return directory / (self.get_cache_file_name().removesuffix(".pickle") + ".sqlite")

    @property
    def state_path(self) -> Path | None:
        """Where the state file is; None if the journal is in a database."""
        return self.journal_path().with_name(self.get_cache_file_name()) if self.journal.is_file else None

    def open_journal(self) -> Journal:
        """The journal, locked; a state file that counts more than the journal is imported.

        Raises:
            StateLockedError: another run is in progress.
            StateError: the journal or the file cannot be used; or there is no state in the database, but one
                beside it that was not imported.
        """
        journal = self.journal
        if journal.is_locked:
            return journal
        try:
            journal.lock()
            start = self._decide()
        except CorruptError as exc:
            LOGGER.error("%s; going on from the state file", exc)  # noqa: TRY400
            journal.unlock()
            journal.lock()
            start = self._decide()
        try:
            self._apply(start)
        except BaseException:
            journal.unlock()
            raise
        return journal

    def send(self, journal: Journal) -> int:
        """As the base class; a warning at the first delivery after a time with `url = outbox:`."""
        waits = journal.backlog().messages
        newest = next(iter(journal.generations()), None)
        if waits and newest and newest.number == journal.filed:  # else the file is written after the delivery
            LOGGER.warning("messages that were collected while `url = outbox:` are sent now: %d", waits)
        return int(super().send(journal))  # type: ignore[misc]

    def after_delivery(self) -> None:
        """Write the state file if everything up to the newest state was delivered."""
        self.write_state_file()

    def before_end(self) -> None:
        """If the run has published something and saved nothing, save again what it loaded: the next run's
        messages need other ids."""
        published = getattr(self, "published_count", 0) > self._published_before
        if self._loaded is not None and published and self.state_number == self.loaded_number:
            self._commit_state(self._loaded)

    def write_state_file(self) -> None:
        """Write the newest state to the state file, unless it is there, or messages still wait."""
        path, journal = self.state_path, self.journal
        newest, data = self._newest_intact()
        if path is None or newest is None or data is None:
            return
        is_there = newest.number == journal.filed and path.exists() and not self._file_is_damaged
        waits = journal.backlog().messages and not self.outbox_is_destination()
        if not is_there and not waits:
            self._write_file(data, newest.number)

    # For commands

    def current_state(self, *, strict: bool = False) -> tuple[Any, Generation | None]:
        """What a run would begin with, and its generation if it is the journal's, without taking the lock and
        without changing anything. The default state if there is none; if `strict`, only where `load_state`
        would return that."""
        start = self._decide()
        if strict and start.pickle is None:
            self._check_may_begin_anew(start.file)
        state = self.make_default_state() if start.pickle is None else self._unpickle(start.pickle, start)
        return state, start.generation

    def read_generation(self, number: int) -> Any:
        """The state of a generation of the journal.

        Raises:
            StateError: it is damaged, or holds what is not allowed.
        """
        return pickles.load(self.journal.pickle(number), self._allow_list())

    def read_file(self, data: bytes, where: str) -> Any:
        """The state in a file from elsewhere, a state file or a plain pickle; `where` is what errors call it.

        Raises:
            StateError: it is not a state, or holds what is not allowed.
        """
        file = self._checked(StateFile.parse(data), where)
        if file.pickle is None:
            raise StateError(f"{where}: {file.problem}; nothing was changed")
        return self._unpickle_file(file)

    def save_as_new(self, state: Any) -> int:
        """Save `state` as a generation of its own, whatever is current; the number of it.

        Raises:
            StateLockedError: another run is in progress.
            StateError: nothing was changed.
        """
        self.check_state(state)
        data = self._dump(state)
        number = self.open_journal().commit(data, run=os.urandom(8).hex())
        self.state_number = number
        self.write_state_file()
        return number

    # How

    def _decide(self) -> Start:
        """What a run begins with. The journal counts if the state file is missing or damaged, or was written
        from it and not replaced by an older one since; otherwise the file does."""
        journal, path = self.journal, self.state_path
        file = self._checked(StateFile.read(path)) if path else StateFile(None)
        generation, data = self._newest_intact()
        is_own = file.id == journal.id and journal.filed <= file.number <= journal.newest
        if generation and (file.pickle is None or is_own):
            return Start(file, generation, data)
        return Start(file, None, file.pickle)

    def _newest_intact(self) -> tuple[Generation, bytes] | tuple[None, None]:
        self.journal.exists()
        for generation in self.journal.generations():
            try:
                return generation, self.journal.pickle(generation.number)
            except DamagedError as exc:
                LOGGER.error("%s; the state before it is used", exc)  # noqa: TRY400
        return None, None

    def _apply(self, start: Start) -> None:
        journal, file = self.journal, start.file
        self._file_is_damaged = bool(file.problem)
        if file.problem:
            LOGGER.error("the state file %s is damaged: %s", self.state_path, file.problem)
        if start.generation:
            if file.pickle is not None and file.number != journal.filed:
                journal.mark_filed(file.number)  # the run before died in between
        elif file.pickle is not None:
            self._import(file, file.pickle)
        self.write_state_file()

    def _import(self, file: StateFile, data: bytes) -> None:
        """Make the pickle of the state file the newest generation, and the file that generation's."""
        had_states = bool(self.journal.generations())
        state = self._unpickle_file(file)
        self.check_state(state)
        if file.is_of_python_2:
            data = self._dump(state)
        number = self.journal.commit(data, run=os.urandom(8).hex(), at_least=file.number)
        self._write_file(data, number)
        why = ", which is not what the journal wrote there last" if had_states else ""
        level = logging.WARNING if had_states else logging.INFO
        LOGGER.log(level, "imported the state file %s%s", self.state_path, why)

    def _commit_state(self, data: bytes) -> None:
        journal = self.journal
        run = self._run
        if getattr(self, "published_count", None) == self._published_before:  # replace the newest
            run = next((generation.run for generation in journal.generations()), run)
        number = journal.commit(data, run=run)
        self._set_current(number, data)
        LOGGER.debug("saved the state %d", number)
        self.deliver_committed()

    def _set_current(self, number: int, data: bytes) -> None:
        self.state_number = number
        self.base_id = f"{number}:{hashlib.sha256(data).hexdigest()}"

    def _dump(self, state: Any) -> bytes:
        return pickles.dump(state, self.pickle_protocol, self._allow_list())

    def _unpickle(self, data: bytes, start: Start) -> Any:
        """The state in the pickle of `start`."""
        if start.generation is None:
            return self._unpickle_file(start.file)
        where = f"{self.journal.where}, state {start.generation.number}"
        try:
            return pickles.load(data, self._allow_list())
        except Exception as exc:  # it is intact, but its classes have changed
            text = (
                str(exc) if isinstance(exc, StateError) else f"cannot be loaded: {type(exc).__name__}: {exc}"
            )
            raise StateError(f"{where}: {text}; nothing was published") from exc

    def _unpickle_file(self, file: StateFile) -> Any:
        """The state in a file that is not damaged, and may be one of n6's, of Python 2 even."""
        data = file.pickle or b""
        if file.is_of_python_2:
            state = pickles.load(data, self._allow_list(), self.get_py2_pickle_load_kwargs())
            return self.adjust_state_from_py2_pickle(state)
        return pickles.load(data, self._allow_list())

    def _allow_list(self) -> pickles.AllowList:
        return pickles.AllowList(type(self).__module__.partition(".")[0], self.state_classes)

    def _checked(self, file: StateFile, where: str = "the state file") -> StateFile:
        """`file`, if it is ours, whose checksum is right by now, or if it can be loaded."""
        if file.pickle is not None and not file.id:
            try:
                self._unpickle_file(file)
            except StateError as exc:
                raise StateError(f"{where}: {exc}; nothing was changed") from exc
            except Exception as exc:  # a damaged pickle may raise anything
                return StateFile(None, f"it cannot be loaded: {type(exc).__name__}: {exc}")
        return file

    def _write_file(self, data: bytes, number: int) -> None:
        if self.state_path:
            StateFile(data, id=self.journal.id, number=number).write(self.state_path)
        self.journal.mark_filed(number)
        self._file_is_damaged = False

    def _check_may_begin_anew(self, file: StateFile) -> None:
        """Raise `StateError` if there was a state that must not be passed over."""
        journal = self.journal
        if self._broken_state == "fail" and (file.problem or journal.generations()):
            raise StateError(
                "no intact state is left, and nothing was changed (broken_state = fail): put a backup of the "
                "state file in its place, or `state import` an older state, or `state reset`"
            )
        if not journal.is_file and "cache_dir" in self.config:
            path = self.journal_path().with_name(self.get_cache_file_name())
            if path.exists() or self.journal_path().exists():
                raise StateError(
                    f"there is no state in {journal.where}, but there is one in {path.parent}; nothing was "
                    f"published; run `state import {path}`, or `state reset` to begin anew"
                )
