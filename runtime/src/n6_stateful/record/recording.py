"""The making of a run's record, and where it goes to and is found."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from n6_stateful import __version__, settings
from n6_stateful.collector import AbstractBaseCollector, BaseCollector
from n6_stateful.config import ConfigFiles, masked_url_text
from n6_stateful.errors import ConfigError, N6StatefulError
from n6_stateful.output.choice import find_spool
from n6_stateful.record.history import DatabaseHistory, FileHistory, History
from n6_stateful.record.run import IN_PROGRESS, RunRecord
from n6_stateful.state.file import FileStore
from n6_stateful.state.mixin import CollectorWithStateMixin

if TYPE_CHECKING:
    from n6_stateful.output.spool import Backlog

LOGGER = logging.getLogger(__name__)
LONGEST_TEXT = 200


class Recording:
    """The record of one run of `collector`, which began at `start`, seconds since the epoch.

    Nothing here raises: what cannot be recorded is one warning, and does not fail a run that was good.
    """

    def __init__(self, collector: BaseCollector, start: float) -> None:
        self._collector = collector
        host, pid, versions = os.uname().nodename, os.getpid(), _versions(type(collector))
        self._record = RunRecord(round(start, 3), host=host, pid=pid, versions=versions)
        self._history = find_history(collector)
        if self._history is not None:
            with suppress(Exception):  # told at the end, if it is no better then
                self._history.put(self._record)

    def end(self, end: float, exit_code: int, error: str = "") -> None:
        """Tell how the run has ended.

        Args:
            end: seconds since the epoch.
            exit_code: of the process.
            error: what was told on standard error; empty if the run ended well.
        """
        with _warning("this run could not be recorded", error):
            self._end(end, exit_code, error)
        directory = self._collector.config_full["monitoring"]["textfile_dir"]
        if directory and not self._record.turned_away:  # what there is to tell, the run in progress will
            with _warning(f"the metrics could not be written to {directory}", error):
                self._write_metrics(Path(directory).expanduser())

    def _end(self, end: float, exit_code: int, error: str) -> None:
        collector = self._collector
        record = self._record._replace(
            end=round(end, 3),
            exit_code=exit_code,
            messages=collector.published_count,
            bytes=collector.published_bytes,
            error=one_line(error),
        )
        if isinstance(collector, CollectorWithStateMixin):
            record = record._replace(
                generation_before=collector.loaded_generation,
                generation_after=collector.state_generation,
            )
            try:
                # The state in hand is ahead of the one that was saved, unless the run ended well.
                if exit_code == 0:
                    record = record._replace(newest=one_line(collector.describe_state()))
            except Exception as exc:  # a collector may have its own
                LOGGER.warning("describe_state() failed: %s: %s", type(exc).__name__, one_line(str(exc)))
        self._record = record
        if self._history is not None:
            self._history.put(record)

    def _write_metrics(self, directory: Path) -> None:
        from n6_stateful.record.metrics import write

        collector = self._collector
        source = collector.config.get("source", "")
        with suppress(Exception):  # where the channel depends on the data, there is none without them
            source = collector.get_source(source_channel=collector.get_source_channel())
        records = self._history.records() if self._history else []
        records = [each for each in records if each.end or not _is_alive(each)]
        records += [] if self._record in records else [self._record]
        backlog = None
        with suppress(N6StatefulError, OSError):  # the run has failed with it
            backlog = find_backlog()
        write(directory, (source, type(collector).__name__), records, backlog, count_broken(collector))


@contextmanager
def _warning(what: str, told: str) -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        problem = str(exc) or type(exc).__name__
        if problem not in told:
            LOGGER.warning("%s: %s", what, " ".join(problem.split()))


def find_history(collector: AbstractBaseCollector) -> History | None:
    """Where the records are kept: with the state, or else in `cache_dir`; None if there is neither."""
    if not isinstance(collector, BaseCollector):
        return None
    keep, config = max(1, collector.config_full["monitoring"]["keep_runs"]), collector.config
    if not isinstance(collector, CollectorWithStateMixin):
        directory = Path(os.path.expanduser(config.get("cache_dir", "")))  # noqa: PTH111 - it never raises
        if not directory.is_absolute() or "source" not in config:
            return None
        return FileHistory(directory / f"{config['source']}.{type(collector).__name__}", keep)
    store = collector.state_store
    if isinstance(store, FileStore):
        return FileHistory(store.path, keep)
    from n6_stateful.state.database import DatabaseStore

    return DatabaseHistory(store, keep) if isinstance(store, DatabaseStore) else None


def find_records(collector: AbstractBaseCollector) -> list[RunRecord]:
    """The records, oldest first. The error of a run in progress says that."""
    history = find_history(collector)
    records = history.records() if history else []
    running = [each for each in records if each.end is None]
    if running and isinstance(collector, CollectorWithStateMixin):
        holder = collector.state_store.holder()
        # A `state` command has the lock, too, so its process must be the run's. A holder that does not say
        # since when has another number here than where it runs.
        if holder and "since" in holder:
            pid = holder.replace(",", "").split()[1]
            running = [each for each in running if str(each.pid) == pid]
        running = running[-1:] if holder else []
    else:
        running = list(filter(_is_alive, running))
    return [each._replace(error=IN_PROGRESS) if each in running else each for each in records]


def _is_alive(record: RunRecord) -> bool:
    """Whether its process is there, and not a later one that has the same number."""
    try:
        fields = Path(f"/proc/{record.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    is_it = record.host == os.uname().nodename and time.time() - age < record.start + 1
    return is_it and fields[0] != "Z"


def count_broken(collector: AbstractBaseCollector) -> int:
    """How many broken states were set aside."""
    if isinstance(collector, CollectorWithStateMixin):
        return len(collector.state_store.set_aside_names())
    return 0


def find_backlog() -> Backlog | None:
    """What waits in the spool that is published to; None if it is none."""
    wanted = settings.current()
    override = wanted.output if isinstance(wanted.output, str) else None
    with suppress(ConfigError):
        return find_spool(ConfigFiles.from_paths(wanted.config_paths), override).backlog()
    return None


def one_line(text: str) -> str:
    """The first line of `text`, not too long, without secrets and without what a terminal obeys."""
    line = masked_url_text(text.partition("\n")[0])
    line = line if line.isprintable() else repr(line)[1:-1]
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 3]}..."


def _versions(collector_class: type) -> str:
    # importlib.metadata takes longer to import than all else that a record takes. That the directory of a
    # distribution is called <name>-<version>.dist-info is a standard.
    package = collector_class.__module__.partition(".")[0]
    for directory in map(Path, filter(os.path.isdir, sys.path)):
        with suppress(OSError):  # it may be closed to this user
            for found in directory.iterdir():
                if found.name.startswith(f"{package}-") and found.suffix == ".dist-info":
                    return f"{found.stem.replace('-', ' ')}, n6-stateful-runtime {__version__}"
    return f"n6-stateful-runtime {__version__}"
