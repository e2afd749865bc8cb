"""`run`, which cron calls and which leaves a record, and `check`, which tries everything without asking the
source."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from n6_stateful import __version__
from n6_stateful.command.failures import Failure, failure_of, report
from n6_stateful.errors import ConfigError, N6StatefulError, PublishError, StateError, StateLockedError
from n6_stateful.health import DAY, Limits, counted, data_size, one_line, printable, write_metrics
from n6_stateful.interruption import raise_if_interrupted
from n6_stateful.message import Message

LOGGER = logging.getLogger(__name__)

SHOWN_BYTES = 200  # of a body, in a dry run
MOST_WARNINGS = 20
ATTRIBUTES = {
    "messages": "published_count",
    "bytes": "published_bytes",
    "delivered": "delivered_count",
    "state_before": "loaded_number",
    "state_after": "state_number",
    "warnings": "left_out",
}


def run(collector: Any, args: Namespace) -> int:
    """Run the collector, record the run, and print one closing line."""
    started = time.time()
    failure = Failure(0, "")
    if args.dry_run:
        collector.show_message = partial(_show, collector, args.limit or sys.maxsize)
    if args.dry_run or not hasattr(collector, "open_journal"):
        collector.run_handling()
        raise_if_interrupted()  # the collector may have swallowed it
    else:
        failure = _run_recorded(collector, Recorder(collector, started), args)
    committed = failure.exit_code == PublishError.exit_code and not collector.journal.buffered
    if failure.exit_code == 0 or committed:
        print(closing_line(collector, time.time() - started, is_dry=args.dry_run))
    return failure.exit_code


def _run_recorded(collector: Any, recorder: Recorder, args: Namespace) -> Failure:
    failure = Failure(0, "")
    logging.getLogger().addHandler(recorder)
    try:
        collector.open_journal()
        recorder.begin()
        collector.run_handling()
        raise_if_interrupted()
    except StateLockedError:
        raise  # the run in progress has the record
    except BaseException as exc:
        failure = failure_of(exc)
    finally:
        logging.getLogger().removeHandler(recorder)
    is_repeat = args.quiet_repeats and recorder.is_repeat(*failure)
    recorder.end(*failure, printed=not is_repeat)
    if is_repeat:
        args.held_log.buffer.clear()
        return failure
    if args.quiet_repeats:
        args.held_log.flush()
    if failure.exit_code:
        report(args, failure)
    return failure


def _show(collector: Any, limit: int, message: Message) -> None:
    """Print a message of a dry run; of a long body, the beginning."""
    if collector.published_count >= limit:
        return
    lines = [f"{message.exchange} {message.routing_key} ({data_size(len(message.body))})"]
    lines += [f"  {name}: {value}" for name, value in sorted(message.properties.items())]
    body = message.body[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    lines += [f"  | {printable(line)}" for line in body.splitlines()]
    more = len(message.body) - SHOWN_BYTES
    print(*lines, *([f"  | ... and {more:,} bytes more"] if more > 0 else []), sep="\n")


def closing_line(collector: Any, seconds: float, *, is_dry: bool | None = False) -> str:
    """What a run has done, in one line."""
    parts = []
    if hasattr(collector, "published_count"):
        what = "would have collected" if is_dry else "collected"
        size = f" ({data_size(collector.published_bytes)})" if collector.published_count else ""
        parts.append(f"{what} {counted(collector.published_count, 'message')}{size}")
        waiting = "" if is_dry else f", {collector.journal.backlog().messages:,} waiting"
        if waiting and collector.outbox_is_destination():
            parts[0] += f"{waiting} in the outbox"
        elif waiting:
            parts[0] += f", delivered {collector.delivered_count:,}{waiting}"
    if hasattr(collector, "state_number"):
        parts.append(f"state {collector.state_number or 'none'}" + (", unchanged" if is_dry else ""))
    return "; ".join([*parts, f"{max(0.0, seconds):.1f} s"])


class Recorder(logging.Handler):
    """Writes the record of the run of `collector` that began at `started`, and collects its warnings.

    What cannot be recorded is a warning, and does not fail a run that was good.
    """

    def __init__(self, collector: Any, started: float) -> None:
        super().__init__(logging.WARNING)
        self._collector = collector
        self._options = getattr(collector, "config_full", {}).get("monitoring", {})
        self._log: list[str] = []
        self._record: dict[str, Any] = {"start": round(started, 3), "end": None, "exit_code": None}
        self._record |= {"host": socket.gethostname(), "pid": os.getpid(), "version": __version__}
        self._record |= {"outcome": "in progress", "expect_every": self._options.get("expect_every", "")}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a warning."""
        if len(self._log) < MOST_WARNINGS:
            self._log.append(one_line(record.getMessage()))

    def begin(self) -> None:
        """Record that the run has begun; the journal is open."""
        record, journal = self._record, self._collector.journal
        try:
            before: Mapping[str, Any] = next(iter(journal.runs(1)), {})
            record["first_run"] = before.get("first_run", record["start"])
            record |= {"last_new_data": before.get("last_new_data"), "locked": journal.is_locked}
            journal.put_run(record["start"], record)
        except N6StatefulError as exc:
            LOGGER.warning("the beginning of this run was not recorded: %s", exc)

    def is_repeat(self, exit_code: int, error: str) -> bool:
        """Whether the last outcome that was printed, a day ago at most, was this one, and all since."""
        outcome = _outcome({"exit_code": exit_code, "error": one_line(error), "log": self._log})
        try:
            runs = self._collector.journal.runs()
        except N6StatefulError:
            return False
        for run in reversed(runs):
            if run["start"] != self._record["start"] and (_outcome(run) != outcome or run.get("printed")):
                return _outcome(run) == outcome and bool(run["start"] > time.time() - DAY)
        return False

    def end(self, exit_code: int, error: str, *, printed: bool) -> None:
        """Record how the run has ended, and write the metrics."""
        collector, record = self._collector, self._record
        record |= {key: getattr(collector, attribute, 0) for key, attribute in ATTRIBUTES.items()}
        outcome = {0: "ok", 130: "interrupted", 143: "interrupted"}.get(exit_code, "failed")
        record |= {"end": round(time.time(), 3), "exit_code": exit_code, "outcome": outcome}
        record |= {"error": one_line(error), "log": self._log, "printed": printed}
        record["newest"] = self._newest() if exit_code == 0 else ""
        is_kept = exit_code == 0 or record["state_after"] != record["state_before"]
        if record["messages"] and is_kept:
            record["last_new_data"] = record["end"]
        try:
            journal = collector.journal
            backlog = journal.backlog()
            record |= {"waiting": backlog.messages, "refused": backlog.refused}
            journal.put_run(record["start"], record)
            if directory := self._options.get("textfile_dir"):
                write_metrics(Path(directory).expanduser(), journal)
        except (N6StatefulError, OSError) as exc:
            if str(exc) not in error:
                LOGGER.warning("this run was not recorded, or its metrics: %s", exc)

    def _newest(self) -> str:
        try:
            return one_line(getattr(self._collector, "describe_state", str)())
        except Exception as exc:  # a collector may have its own
            LOGGER.warning("describe_state() failed: %s: %s", type(exc).__name__, one_line(str(exc)))
            return ""


def _outcome(run: Mapping[str, Any]) -> str:
    """What a run has ended with; figures in texts may change."""
    return re.sub(r"\d+", "0", f"{run['exit_code']} {run.get('error')} {run.get('log')}")


def check(collector: Any, args: Namespace) -> int:
    """Try the configuration, the state, the output and the metrics, and print a line for each.

    Returns:
        0, or the exit code of the first that fails; the others are tried all the same.
    """
    print("configuration: ok")
    codes = []
    if hasattr(collector, "current_state"):
        codes.append(_try("state", lambda: _state(collector)))
    if hasattr(collector, "try_output"):
        codes.append(_try("output", collector.try_output))
    if options := getattr(collector, "config_full", {}).get("monitoring"):
        codes.append(_try("metrics", lambda: _metrics(options)))
    print("source: not asked; `run --dry-run` does")
    return next(filter(None, codes), 0)


def _try(name: str, look: Callable[[], str]) -> int:
    try:
        print(f"{name}: ok, {look()}")
    except N6StatefulError as exc:
        print(f"{name}: {exc}")
        return exc.exit_code
    return 0


def _state(collector: Any) -> str:
    journal, file = collector.journal, collector.state_path
    state, generation = collector.current_state()
    collector.check_state(state)
    if generation:
        return f"number {generation.number} of {generation.saved} in {journal.where}"
    if file and file.exists():
        collector.read_file(file.read_bytes(), str(file))  # it may be damaged
        return f"the next run imports {file}"
    directory = next(path for path in journal.path.parents if path.exists())
    if file and not os.access(directory, os.W_OK | os.X_OK):
        raise StateError(f"{directory}: this user may not write there; nothing was tried")
    return f"none yet; the first run makes {journal.where}"


def _metrics(options: Any) -> str:
    Limits.expecting(options["expect_every"])
    if not options["textfile_dir"]:
        return "none, as [monitoring] textfile_dir is not set"
    directory = Path(options["textfile_dir"]).expanduser()
    if not directory.is_dir() or not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(
            f"[monitoring] textfile_dir = {directory}: not a directory where this user may write"
        )
    return f"in {directory}"
