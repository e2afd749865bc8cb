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
from typing import Any, ClassVar

from n6_stateful import pickles, settings
from n6_stateful.errors import CollectorError, ConfigError, StateError
from n6_stateful.interruption import raise_if_interrupted
from n6_stateful.journal import JOURNAL_SPEC, CorruptError, DamagedError, Generation, Journal
from n6_stateful.publishing import WithJournal
from n6_stateful.state_file import StateFile

LOGGER = logging.getLogger(__name__)

# How to decode the `str` of Python 2 so that no byte is lost, as `pickle.load` takes it.
LOSSLESS = {"encoding": "utf-8", "errors": "surrogateescape"}


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
        self._loaded: bytes | None = None  # the pickle of the state that the run began with
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
        if not settings.current().dry_run:
            self.open_journal()
        start, _ = self._decide()
        if start.pickle is None:
            self._check_may_begin_anew(start)
            LOGGER.warning("there is no state yet: beginning with the default state")
        else:
            LOGGER.info("loading the state %d", start.number)
        state = self._load(start)
        self.check_state(state)
        self._loaded = start.pickle or self._dump(state)
        self._run = os.urandom(8).hex()
        self._published_before = getattr(self, "published_count", 0)
        self.loaded_number = start.number
        self._set_current(start.number, start.pickle or b"default")
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
        if not self.journal.is_locked:
            try:
                self._lock_and_import()
            except CorruptError as exc:
                LOGGER.error("%s; going on from the state file", exc)  # noqa: TRY400
                self._lock_and_import()
        return self.journal

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
        if self._loaded is not None and self._has_published() and self.state_number == self.loaded_number:
            self._commit_state(self._loaded)

    def write_state_file(self, *, at_once: bool = False) -> None:
        """Write the newest state to the state file, unless it is there, or messages still wait; or `at_once`,
        whatever is there."""
        path, journal, newest = self.state_path, self.journal, self._newest()
        if path is None or newest.pickle is None:
            return
        is_there = newest.number == journal.filed and self._file().pickle is not None
        waits = journal.backlog().messages and not self.outbox_is_destination()
        if at_once or not (is_there or waits):
            newest.write(path)
            journal.mark_filed(newest.number)

    # For commands

    def current_state(self, *, strict: bool = False) -> tuple[Any, Generation | None]:
        """What a run would begin with, and its generation if it is the journal's, without taking the lock and
        without changing anything. The default state if there is none; if `strict`, only where `load_state`
        would return that."""
        start, file = self._decide()
        if strict and start.pickle is None:
            self._check_may_begin_anew(start)
        kept = [] if start is file else self.journal.generations()
        return self._load(start), next((one for one in kept if one.number == start.number), None)

    def read_generation(self, number: int) -> Any:
        """The state of a generation of the journal.

        Raises:
            StateError: it is damaged, or holds what is not allowed.
        """
        return self._load(self._saved(number))

    def read_file(self, data: bytes, where: str) -> Any:
        """The state in a file from elsewhere, a state file or a plain pickle; `where` is what errors call it.

        Raises:
            StateError: it is not a state, or holds what is not allowed.
        """
        file = StateFile.parse(data, where)
        if file.pickle is None:
            raise StateError(f"{file.problem}; nothing was changed")
        return self._load(file)

    def save_as_new(self, state: Any) -> int:
        """Save `state` as a generation of its own, whatever is current; the number of it.

        Raises:
            StateLockedError: another run is in progress.
            StateError: nothing was changed.
        """
        self.check_state(state)
        data = self._dump(state)
        self.state_number = self.open_journal().commit(data)
        self.write_state_file()
        return self.state_number

    # How

    def _lock_and_import(self) -> None:
        journal = self.journal
        try:
            journal.lock()
            start, file = self._decide()
            if file.problem:
                LOGGER.error("the state file is damaged: %s", file.problem)
            if start is file and file.pickle is not None:
                self._import(file)
            elif file.pickle is not None and file.number != journal.filed:
                journal.mark_filed(file.number)  # the run before died in between
            self.write_state_file()
        except BaseException:
            journal.unlock()
            raise

    def _decide(self) -> tuple[StateFile, StateFile]:
        """What a run begins with, and the state file. The journal counts if the file is missing or damaged,
        or was written from it and not replaced by an older one since; otherwise the file does."""
        journal, file, newest = self.journal, self._file(), self._newest()
        is_own = file.id == journal.id and journal.filed <= file.number <= journal.newest
        journal_counts = newest.pickle is not None and (file.pickle is None or is_own)
        return (newest if journal_counts else file), file

    def _file(self) -> StateFile:
        """The state file. One that is not ours has no checksum: it is damaged if it cannot be loaded."""
        file = StateFile.read(self.state_path) if self.state_path else StateFile(None)
        try:
            if file.pickle is not None and not file.id:
                self._load(file)
        except DamagedError as exc:
            return StateFile(None, f"{file.where}: cannot be loaded: {exc.__cause__!r}")
        return file

    def _newest(self) -> StateFile:
        """The newest state in the journal that is intact."""
        self.journal.exists()
        for generation in self.journal.generations():
            try:
                return self._saved(generation.number)
            except DamagedError as exc:
                LOGGER.error("%s; the state before it is used", exc)  # noqa: TRY400
        return StateFile(None)

    def _saved(self, number: int) -> StateFile:
        """A state in the journal, as the file that it makes."""
        journal = self.journal
        return StateFile(journal.pickle(number), "", journal.id, number, f"{journal.where}, state {number}")

    def _import(self, file: StateFile) -> None:
        """Make the state in the file the newest of the journal, and the file that state's."""
        level, why = logging.INFO, ""
        if self.journal.generations():
            level, why = logging.WARNING, ", which is not what the journal wrote there last"
        state = self._load(file)
        self.check_state(state)
        data = self._dump(state) if file.is_of_python_2 else file.pickle
        self.journal.commit(data, at_least=file.number)
        self.write_state_file(at_once=True)
        LOGGER.log(level, "imported the state file %s%s", self.state_path, why)

    def _commit_state(self, data: bytes) -> None:
        run = self._run
        if not self._has_published():  # replace the newest
            run = next((generation.run for generation in self.journal.generations()), run)
        number = self.journal.commit(data, run=run)
        self._set_current(number, data)
        LOGGER.debug("saved the state %d", number)
        self.deliver_committed()

    def _has_published(self) -> bool:
        """Whether anything was published since `load_state`; over a base that does not publish, always."""
        return getattr(self, "published_count", None) != self._published_before

    def _set_current(self, number: int, data: bytes) -> None:
        self.state_number = number
        self.base_id = f"{number}:{hashlib.sha256(data).hexdigest()}"

    def _dump(self, state: Any) -> bytes:
        return pickles.dump(state, self.pickle_protocol, self._allow_list())

    def _load(self, file: StateFile) -> Any:
        """The state in a file, which may be one of n6's, of Python 2 even; the default state if it is missing
        or damaged."""
        if file.pickle is None:
            return self.make_default_state()
        py2_kwargs = self.get_py2_pickle_load_kwargs() if file.is_of_python_2 else {}
        try:
            state = pickles.load(file.pickle, self._allow_list(), py2_kwargs)
        except StateError as exc:
            raise StateError(f"{file.where}: {exc}; nothing was changed or published") from exc
        except Exception as exc:  # a damaged pickle, or a class that has changed, may raise anything
            text = f"{file.where}: cannot be loaded: {type(exc).__name__}: {exc}"
            raise DamagedError(f"{text}; nothing was changed or published") from exc
        return self.adjust_state_from_py2_pickle(state) if file.is_of_python_2 else state

    def _allow_list(self) -> pickles.AllowList:
        return pickles.AllowList(type(self).__module__.partition(".")[0], self.state_classes)

    def _check_may_begin_anew(self, file: StateFile) -> None:
        """Raise `StateError` if there was a state that must not be passed over."""
        journal = self.journal
        if self._broken_state == "fail" and (file.problem or journal.generations()):
            raise StateError(
                "no intact state is left, and nothing was changed (broken_state = fail): put a backup of the "
                "state file in its place, or `state import` an older state, or `state reset`"
            )
        path = self.journal_path().with_name(self.get_cache_file_name())
        if not journal.is_file and (path.exists() or self.journal_path().exists()):
            raise StateError(
                f"there is no state in {journal.where}, but there is one in {path.parent}; nothing was "
                f"published; run `state import {path}`, or `state reset` to begin anew"
            )
