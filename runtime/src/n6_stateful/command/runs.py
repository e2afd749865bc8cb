"""`run`, which cron calls and which leaves a record; `runs` and `status`, which read the records; and
`check`, which tries everything without asking the source."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from n6_stateful import __version__, errors, health
from n6_stateful.command import failure_of, report
from n6_stateful.interruption import raise_if_interrupted
from n6_stateful.message import Message

LOGGER = logging.getLogger(__name__)

LINE = "{:19} {:>9} {:>4} {:>11} {:>15} {:>9} {:>6}  {}"
TITLES = ("START (UTC)", "SECONDS", "EXIT", "MESSAGES", "BYTES", "WAITING", "STATE", "NEWEST, ERROR")
HEADER = LINE.format(*TITLES)
SHOWN_BYTES = 200  # of a body, in a dry run
MOST_WARNINGS = 20
OUTCOMES = {0: "ok", 130: "interrupted", 143: "interrupted"}  # others have failed
# Figures of a record, and the attributes of a collector that have them.
FIGURES = {"messages": "published_count", "bytes": "published_bytes", "delivered": "delivered_count"}
FIGURES |= {"warnings": "left_out", "state_before": "loaded_number", "state_after": "state_number"}
CARRIED_ON = ("first_run", "last_new_data", "printed")  # from a record to the next


def run(collector: Any, args: Namespace) -> int:
    """Run the collector, record the run, and print one closing line."""
    started, code = time.time(), 0
    if args.dry_run:
        collector.show_message = partial(_show, collector, args.limit or sys.maxsize)
    if args.dry_run or not hasattr(collector, "open_journal"):
        collector.run_handling()
        raise_if_interrupted()  # the collector may have swallowed it
    else:
        code = _run_recorded(collector, args, started)
    if code == 0 or (code == errors.PublishError.exit_code and not collector.journal.buffered):
        print(closing_line(collector, time.time() - started, is_dry=args.dry_run))
    return code


def _run_recorded(collector: Any, args: Namespace, started: float) -> int:
    recorder, code, text = Recorder(collector, started), 0, ""
    logging.getLogger().addHandler(recorder)
    try:
        collector.open_journal()
        recorder.begin()
        collector.run_handling()
        raise_if_interrupted()
    except errors.StateLockedError:
        raise  # the run in progress has the record
    except BaseException as exc:
        code, text = failure_of(exc)
    finally:
        logging.getLogger().removeHandler(recorder)
    if recorder.end(code, text, quiet=args.quiet_repeats):
        args.held_log.buffer.clear()
        return code
    if args.quiet_repeats:
        args.held_log.flush()
    return report(args, code, text) if code else 0


def _show(collector: Any, limit: int, message: Message) -> None:
    """Print a message of a dry run; of a long body, the beginning."""
    if collector.published_count >= limit:
        return
    lines = [f"{message.exchange} {message.routing_key} ({health.data_size(len(message.body))})"]
    lines += [f"  {name}: {value}" for name, value in sorted(message.properties.items())]
    body = message.body[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    more = ["..."] if len(message.body) > SHOWN_BYTES else []
    print(*lines, *(f"  | {health.printable(line)}" for line in body.splitlines() + more), sep="\n")


def closing_line(collector: Any, seconds: float, *, is_dry: bool | None = False) -> str:
    """What a run has done, in one line."""
    parts = []
    if hasattr(collector, "published_count"):
        size = f" ({health.data_size(collector.published_bytes)})" if collector.published_count else ""
        collected = f"collected {health.counted(collector.published_count, 'message')}{size}"
        if is_dry:
            parts = [f"would have {collected}"]
        else:
            is_kept, waiting = collector.outbox_is_destination(), collector.journal.backlog().messages
            delivered = "" if is_kept else f", delivered {collector.delivered_count:,}"
            parts = [f"{collected}{delivered}, {waiting:,} waiting{' in the outbox' if is_kept else ''}"]
    if hasattr(collector, "state_number"):
        parts.append(f"state {collector.state_number or 'none'}" + (", unchanged" if is_dry else ""))
    return "; ".join([*parts, f"{max(0.0, seconds):.1f} s"])


class Recorder(logging.Handler):
    """Writes the record of the run of `collector` that began at `started`, and collects its warnings.

    What cannot be recorded is a warning, and does not fail a run that was good.
    """

    def __init__(self, collector: Any, started: float) -> None:
        super().__init__(logging.WARNING)
        self._collector, self._before = collector, dict[str, Any]()
        self._record: dict[str, Any] = {"start": round(started, 3), "end": None, "exit_code": None, "log": []}
        self._record |= {"host": socket.gethostname(), "pid": os.getpid(), "version": __version__}
        self._record |= {"outcome": "in progress", "expect_every": _expect_every(collector)}
        self._record["to_outbox"] = hasattr(collector, "send") and collector.outbox_is_destination()
        self._record |= {"first_run": self._record["start"], "last_new_data": None, "printed": 0}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a warning."""
        if len(self._record["log"]) < MOST_WARNINGS:
            self._record["log"].append(health.one_line(record.getMessage()))

    def begin(self) -> None:
        """Record that the run has begun, with what the record of the run before carries on."""
        record, journal = self._record, self._collector.journal
        record["locked"] = journal.is_locked
        with self._only_a_warning("the beginning of this run was not recorded"):
            self._before = next(iter(journal.runs(1)), {})
            record |= {name: self._before[name] for name in CARRIED_ON if name in self._before}
            journal.put_run(record["start"], record)

    def end(self, exit_code: int, error: str, *, quiet: bool | None) -> bool:
        """Record how the run has ended, and write the metrics.

        Returns:
            Whether a `quiet` run ended as the one before, and less than a day after that was printed.
        """
        collector, record, is_repeat = self._collector, self._record, False
        record |= {name: getattr(collector, attribute, 0) for name, attribute in FIGURES.items()}
        record |= {"end": round(time.time(), 3), "exit_code": exit_code, "error": health.one_line(error)}
        record |= {"outcome": OUTCOMES.get(exit_code, "failed"), "newest": ""}
        if "locked" not in record:  # the journal could not be opened
            self.begin()
        with self._only_a_warning("describe_state() failed"):
            if exit_code == 0 and hasattr(collector, "describe_state"):
                record["newest"] = health.one_line(collector.describe_state())
        with self._only_a_warning("this run was not recorded, or its metrics"):
            if record["messages"] and (exit_code == 0 or record["state_after"] != record["state_before"]):
                record["last_new_data"] = record["end"]
            is_recent = record["start"] < record["printed"] + health.DAY
            is_repeat = bool(quiet) and is_recent and _outcome(self._before) == _outcome(record)
            if not is_repeat:
                record["printed"] = record["start"]
            backlog = collector.journal.backlog()
            record |= {"waiting": backlog.messages, "refused": backlog.refused}
            collector.journal.put_run(record["start"], record)
            if directory := getattr(collector, "config_full", {}).get("monitoring", {}).get("textfile_dir"):
                health.write_metrics(Path(directory).expanduser(), collector.journal)
        return is_repeat

    @contextmanager
    def _only_a_warning(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as exc:
            if health.one_line(str(exc)) != self._record.get("error"):  # else it is known
                LOGGER.warning("%s: %s: %s", what, type(exc).__name__, health.one_line(str(exc)))


def _expect_every(collector: Any) -> str:
    return str(getattr(collector, "config", {}).get("expect_every", ""))


def _outcome(run: Mapping[str, Any]) -> str:
    """What a run has ended with; figures in texts may change."""
    return re.sub(r"\d+", "0", f"{run.get('exit_code')} {run.get('error')} {run.get('log')}")


def check(collector: Any, args: Namespace) -> int:
    """Try the configuration, the state, the output and the metrics, and print a line for each.

    Returns:
        0, or the exit code of the first that fails; the others are tried all the same.
    """
    print("configuration: ok")
    code = 0
    for name, needed, look in CHECKS:
        try:
            if hasattr(collector, needed):
                print(f"{name}: ok, {look(collector)}")
        except errors.N6StatefulError as exc:
            print(f"{name}: {exc}")
            code = code or exc.exit_code
    print("source: not asked; `run --dry-run` does")
    return code


def _state(collector: Any) -> str:
    journal, file = collector.journal, collector.state_path
    state, generation = collector.current_state(strict=True)
    collector.check_state(state)
    if generation:
        return f"number {generation.number} of {generation.saved} in {journal.where}"
    if file and file.exists():
        collector.read_file(file.read_bytes(), str(file))  # it may be damaged
        return f"the next run imports {file}"
    directory = next(path for path in journal.path.parents if path.exists())
    if file and not os.access(directory, os.W_OK | os.X_OK):
        raise errors.StateError(f"{directory}: this user may not write there; nothing was tried")
    return f"none yet; the first run makes {journal.where}"


def _metrics(collector: Any) -> str:
    directory = collector.config_full["monitoring"]["textfile_dir"]
    health.Limits.expecting(_expect_every(collector))
    if directory and not os.access(Path(directory).expanduser(), os.W_OK | os.X_OK):
        raise errors.ConfigError(f"[monitoring] textfile_dir = {directory}: this user may not write there")
    return f"in {directory}" if directory else "none, as [monitoring] textfile_dir is not set"


# For each part that is tried: the attribute of the collector that it needs.
CHECKS = (
    ("state", "current_state", _state),
    ("output", "try_output", lambda collector: collector.try_output()),
    ("metrics", "config_full", _metrics),
)


def runs(collector: Any, args: Namespace) -> int:
    """Print a line for each run, the newest first, or JSON; or draw a picture."""
    chosen = health.records(collector.journal, time.time(), args.last)
    if args.since:
        chosen = [run for run in chosen if run["start"] >= time.time() - args.since]
    if args.plot:
        plot(chosen, f"Runs of {type(collector).__name__}, red if they failed", args.plot)
        print(f"the runs are drawn in {args.plot.resolve()}")
    elif args.json:
        sys.stdout.writelines(f"{json.dumps(run)}\n" for run in reversed(chosen))
    else:
        print(HEADER, *map(as_line, reversed(chosen)), sep="\n")
    return 0


def as_line(run: dict[str, Any]) -> str:
    """A run, for people."""
    took, code = (f"{run['end'] - run['start']:,.1f}", run["exit_code"]) if run["end"] else ("", "")
    figures = [f"{run.get(name, 0):,}" for name in ("messages", "bytes", "waiting")]
    about = [run.get("newest"), run.get("error") or ("" if run["end"] else run["outcome"])]
    columns = [took, code, *figures, run.get("state_after") or "", ", ".join(filter(None, about))]
    return LINE.format(f"{_date(run):%Y-%m-%d %H:%M:%S}", *columns).rstrip()


def plot(runs: Sequence[Mapping[str, Any]], title: str, file: Path) -> None:
    """Draw the messages of runs over time into `file`, those of failed runs in red.

    Raises:
        ConfigError: matplotlib is not installed, or does not know that kind of file.
        OSError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise errors.needs_extra("--plot", "plot", exc) from exc
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    over = [run for run in runs if run["outcome"] != "in progress"]
    colors = ["black" if run["outcome"] == "ok" else "red" for run in over]
    axes.scatter([_date(run) for run in over], [run.get("messages", 0) for run in over], c=colors, s=9)
    axes.set(title=title, xlabel="start of the run (UTC)", ylabel="messages of a run", ylim=(0, None))
    try:
        figure.savefig(file, dpi=150)
    except ValueError as exc:
        raise errors.ConfigError(f"{file}: {exc}") from exc


def _date(run: Mapping[str, Any]) -> Any:
    return datetime.fromtimestamp(run["start"], UTC)


def status(collector: Any, args: Namespace) -> int:
    """Print one line with performance data, as the plugins of Nagios and Icinga do
    (https://www.monitoring-plugins.org/doc/guidelines.html), and return their exit code."""
    given = {name: getattr(args, name) for name in health.Limits._fields}
    given = {name: value for name, value in given.items() if value is not None}
    limits = health.Limits.expecting(_expect_every(collector))._replace(**given)
    if limits.warning > limits.critical:
        raise errors.ConfigError("--warning must not be more than --critical")
    check = health.judge(health.Health.read(collector.journal, time.time()), limits)
    print(f"{health.LEVELS[check.level]} - {check.text} | {check.perfdata}")
    return check.level
