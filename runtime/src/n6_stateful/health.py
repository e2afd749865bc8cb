"""The records of runs, and the health of collectors that they show.

    python -m n6_stateful.health DIR... [--json]

prints a line for each journal in these directories, the worst first. The exit code is as for `status`.

A record is a dict. It contains no secrets and no published data:

    start, end               seconds since the epoch; `end` is None until the run has ended
    exit_code, outcome       `in progress`, `ok`, `failed`, `interrupted`; `killed` when it is read
    messages, bytes          what was collected
    delivered                how many messages the broker has confirmed
    waiting, refused         how many messages are in the outbox, and how many of them the broker has refused
    state_before, -_after    the number of the state that was loaded, and of the one saved last
    newest                   how far the source was read (`describe_state`), after a good run
    warnings, log            how many rows or items were left out; the first warnings
    error, printed           first line of the error; when the same outcome was last printed
    first_run, last_new_data seconds since the epoch; kept here because old records are pruned (`keep_runs`)
    expect_every, to_outbox  the option of that name; whether messages stay in the outbox
    host, pid, version, locked
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from n6_stateful.config import seconds
from n6_stateful.errors import ConfigError, StateError
from n6_stateful.journal import Backlog, Journal, journals_in
from n6_stateful.masking import masked_url_text

OK, WARNING, CRITICAL, UNKNOWN = range(4)
LEVELS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
AHEAD = 300  # seconds that another machine's clock may be ahead
HOUR, DAY = 3600, 86_400
KILLED = "did not end: it was killed, or the machine stopped"
LONGEST_TEXT = 200


def printable(line: str) -> str:
    """The line, escaped if it contains control characters."""
    return line if line.isprintable() else ascii(line)[1:-1]


def one_line(text: str) -> str:
    """The first line of `text`, shortened, without secrets and control characters."""
    line = printable(masked_url_text(text.partition("\n")[0]))
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 3]}..."


def counted(count: int, what: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def data_size(size: int) -> str:
    """`999 bytes`, `12 kB`, `3 MB`."""
    power = min((len(str(size)) - 1) // 3, 3)
    return f"{size / 1000**power:,.0f} {('kB', 'MB', 'GB')[power - 1]}" if power else counted(size, "byte")


class Health(NamedTuple):
    """The health of a collector, as its journal shows it.

    Attributes:
        now: seconds since the epoch.
        runs: records of the runs that have ended or were killed, oldest first.
        running: the record of the run in progress.
        backlog: the messages waiting in the outbox.
        broken: how many journals were moved aside.
    """

    now: float
    runs: Sequence[Mapping[str, Any]] = ()
    running: Mapping[str, Any] | None = None
    backlog: Backlog = Backlog(0, 0, 0, None)
    broken: int = 0

    @classmethod
    def read(cls, journal: Journal, now: float) -> Health:
        """The health of a collector now.

        Raises:
            StateError: the journal cannot be read.
        """
        runs = records(journal, now)
        running = next((run for run in reversed(runs) if run["outcome"] == "in progress"), None)
        over = [run for run in runs if run["outcome"] != "in progress"]
        return cls(now, over, running, journal.backlog(), len(moved_aside(journal)))

    @property
    def last(self) -> Mapping[str, Any]:
        """The last run, or an empty record."""
        return self.runs[-1] if self.runs else {}

    @property
    def good(self) -> float | None:
        """When the last good run ended."""
        return next((run["end"] for run in reversed(self.runs) if run["outcome"] == "ok"), None)

    @property
    def failed(self) -> int:
        """How many runs have failed in a row since the last good one."""
        return sum(1 for _ in takewhile(lambda run: run["outcome"] != "ok", reversed(self.runs)))


def records(journal: Journal, now: float, last: int | None = None) -> list[dict[str, Any]]:
    """The records in a journal, oldest first. Runs that died get the outcome `killed`."""
    runs, holder = journal.runs(last), journal.holder()
    for run in runs:
        if run["end"] is None:
            # A lock in a database only shows its session.
            known = holder and holder.pid and (holder.host, holder.pid)
            is_holder = bool(holder) and known in (0, (run.get("host"), run.get("pid")))
            # Collectors of mails take no lock; only the run's age can show it.
            if not (is_holder if run.get("locked") else now - run["start"] < HOUR):
                run |= {"outcome": "killed", "error": KILLED}
    return runs


def moved_aside(journal: Journal) -> list[Path]:
    """The corrupt journals that were moved aside."""
    names = journal.path.parent.glob(f"{glob.escape(journal.path.name)}.broken-*")
    return sorted(path for path in names if not path.name.endswith("-journal"))


class Limits(NamedTuple):
    """Ages in seconds from which a check is not OK."""

    warning: int = 2 * HOUR
    critical: int = 6 * HOUR
    no_data: int = 7 * DAY

    @classmethod
    def expecting(cls, every: str) -> Limits:
        """The limits for a collector that runs every `every`, like `10m`; empty if that is unknown."""
        try:
            length = seconds(every) if every else 0
        except ValueError as exc:
            raise ConfigError(f"expect_every = {every}: {exc}") from exc
        return cls(2 * length, 6 * length, max(7 * DAY, 6 * length)) if length else cls()


class Check(NamedTuple):
    """One thing that was checked.

    Attributes:
        level: `OK`, `WARNING`, `CRITICAL` or `UNKNOWN`.
        text: empty if there is nothing to report.
        perfdata: performance data in the format of Nagios.
    """

    level: int
    text: str = ""
    perfdata: str = ""


def _age(label: str, since: float, text: str, now: float, warning: int, critical: int | None = None) -> Check:
    age = max(0, int(now - since))
    level = CRITICAL if critical is not None and age >= critical else WARNING if age >= warning else OK
    bounds = f"{warning};{'' if critical is None else critical};0"
    return Check(level, text.format(length(age)), f"{label}={age}s;{bounds}")


def _count(label: str, count: int, one: str, many: str) -> Check:
    text = f"{count:,} {one if count == 1 else many}" if count else ""
    return Check(WARNING if count else OK, text, f"{label}={count};;;0")


def length(age: int) -> str:
    """A length of time, roughly."""
    for unit, size in (("days", DAY), ("h", HOUR), ("min", 60)):
        if age >= 2 * size:
            return f"{age // size} {unit}"
    return f"{age} s"


def check_good_run(health: Health, limits: Limits) -> Check:
    """The age of the last good run."""
    if health.good is not None:
        text = "last good run {} ago"
        return _age("last_good", health.good, text, health.now, limits.warning, limits.critical)
    if health.runs:
        return Check(CRITICAL, "no run has succeeded yet")
    return Check(OK if health.running else UNKNOWN, "" if health.running else "no run is recorded")


def check_failed(health: Health, limits: Limits) -> Check:
    """Whether runs have failed since the last good one."""
    error = health.last.get("error", "")
    return _count("failed", health.failed, f"run failed: {error}", f"runs failed in a row: {error}")


def check_new_data(health: Health, limits: Limits) -> Check:
    """The age of the last new data."""
    new, first = health.last.get("last_new_data"), health.last.get("first_run", health.last.get("start"))
    if first is None:
        return Check(OK)
    text = "last new data {} ago" if new else "no new data since the first run, {} ago"
    return _age("new_data", new or first, text, health.now, limits.no_data)


def check_running(health: Health, limits: Limits) -> Check:
    """How long a run has been in progress."""
    if health.running is None:
        return Check(OK)
    text = "a run has been in progress for {}"
    return _age("running", health.running["start"], text, health.now, limits.warning, limits.critical)


def check_waiting(health: Health, limits: Limits) -> Check:
    """How many messages wait, for how long, and whether the collector still runs to deliver them."""
    count, oldest = health.backlog.messages, health.backlog.oldest
    if oldest is None or health.last.get("to_outbox"):
        return Check(OK, "", f"outbox_waiting={count};;;0")
    text = f"{count:,} {'message waits' if count == 1 else 'messages wait'} in the outbox, since {{}}"
    check = _age("outbox_oldest", oldest, text, health.now, limits.warning, limits.critical)
    check = check._replace(perfdata=f"outbox_waiting={count};;;0 {check.perfdata}")
    if health.running or health.now - health.last.get("start", 0) < max(DAY, limits.critical):
        return check
    text = f"{check.text}; the collector has not run for a day (`outbox deliver`)"
    return check._replace(level=CRITICAL, text=text)


def check_refused(health: Health, limits: Limits) -> Check:
    """Whether the broker has refused messages."""
    text = "refused by the broker (`outbox list`)"
    return _count("outbox_refused", health.backlog.refused, f"message was {text}", f"messages were {text}")


def check_left_out(health: Health, limits: Limits) -> Check:
    """Whether the last run left anything out."""
    text = "left out in the last run (`runs --json`)"
    count = health.last.get("warnings", 0)
    return _count("left_out", count, f"row or item was {text}", f"rows or items were {text}")


def check_broken(health: Health, limits: Limits) -> Check:
    """Whether there are broken journals that were moved aside."""
    text = "moved aside (`state show`)"
    one, many = f"broken journal was {text}", f"broken journals were {text}"
    return _count("broken_journals", health.broken, one, many)


def check_clock(health: Health, limits: Limits) -> Check:
    """Whether the clock is wrong, or was."""
    ahead = max(health.last.get("end") or 0, health.last.get("start", 0)) > health.now + AHEAD
    text = "the last run is dated more than five minutes in the future: is the clock right?"
    return Check(WARNING, text) if ahead else Check(OK)


CHECKS = [check_good_run, check_failed, check_new_data, check_running, check_waiting, check_refused]
CHECKS += [check_left_out, check_broken, check_clock]


def judge(health: Health, limits: Limits) -> Check:
    """Combine all checks: the worst level, the texts (worst first) and all performance data."""
    checks = sorted((check(health, limits) for check in CHECKS), key=lambda check: -check.level)
    text = "; ".join(check.text for check in checks if check.text)
    perfdata = " ".join(check.perfdata for check in checks if check.perfdata)
    return Check(checks[0].level, text.replace("|", "/"), perfdata)  # a bar begins the performance data


def write_metrics(directory: Path, journal: Journal) -> None:
    """Write `n6_<source>.<collector>.prom` for the textfile collector of Prometheus' node_exporter,
    atomically. All metrics are gauges with the labels `source` and `collector` (the name of the class); times
    are seconds since the epoch, 0 for never.

    Raises:
        OSError: the file cannot be written.
        StateError: the journal cannot be read.
    """
    health = Health.read(journal, time.time())
    last, backlog = health.last, health.backlog
    end = last["end"] or last["start"]
    new_data = last.get("last_new_data") or 0
    code = -1 if last["exit_code"] is None else last["exit_code"]
    # Do not change these texts: node_exporter refuses a metric for which two collectors have different ones.
    metrics: dict[str, tuple[str, float | None]] = {
        "last_run_timestamp_seconds": ("When the last run ended", end),
        "last_run_exit_code": ("The exit code of the last run, -1 if it was killed", code),
        "last_run_duration_seconds": ("How long the last run took", end - last["start"]),
        "last_run_messages": ("How many messages the last run collected", last.get("messages", 0)),
        "last_success_timestamp_seconds": ("When the last good run ended", health.good or 0),
        "last_new_data_timestamp_seconds": ("When the last run with new data ended", new_data),
        "failed_runs": ("How many runs have failed since the last good one", health.failed),
        "first_run_timestamp_seconds": ("When the first run began", last.get("first_run", last["start"])),
        "broken_journals": ("How many broken journals were moved aside", health.broken),
        "outbox_waiting_messages": ("How many messages wait in the outbox", backlog.messages),
        "outbox_refused_messages": ("How many of them the broker has refused", backlog.refused),
        "outbox_oldest_timestamp_seconds": ("When the oldest of them was collected", backlog.oldest),
    }
    source, _, class_name = journal.name.rpartition(".")
    labels = f'{{source="{source}",collector="{class_name}"}}'
    lines = []
    for name, (about, value) in metrics.items():
        if value is not None:
            lines += [f"# HELP n6_collector_{name} {about}", f"# TYPE n6_collector_{name} gauge"]
            lines += [f"n6_collector_{name}{labels} {value}", ""]
    file = directory / f".n6_{journal.name}.{os.getpid()}"
    file.write_text("\n".join(lines))
    file.chmod(0o644)  # node_exporter is another user
    file.rename(directory / f"n6_{journal.name}.prom")


def describe(journal: Journal, now: float) -> dict[str, Any]:
    """A summary of a journal for `--json`, also if it cannot be read. Times are seconds since the epoch."""
    file = journal.path.with_suffix(".pickle")
    about = dict.fromkeys(("last_good", "last_new_data", "last_run", "waiting", "refused", "last_error"))
    about |= {"name": journal.name, "state_file": file.stat().st_mtime if file.exists() else None}
    try:
        health = Health.read(journal, now)
        check = judge(health, Limits.expecting(health.last.get("expect_every", "")))
    except (StateError, ConfigError) as exc:
        return about | {"status": LEVELS[UNKNOWN], "text": one_line(str(exc))}
    finally:
        journal.unlock()
    about |= {"last_good": health.good, "last_run": health.last.get("start")}
    about |= {"last_new_data": health.last.get("last_new_data"), "waiting": health.backlog.messages}
    about |= {"refused": health.backlog.refused, "status": LEVELS[check.level], "text": check.text}
    errors = [run["error"] for run in health.runs if run.get("error")]
    return about | {"last_error": errors[-1] if errors else ""}


def _columns(about: Mapping[str, Any], now: float) -> list[str]:
    ages = [about["last_good"], about["last_new_data"], about["state_file"]]
    shown = ["-" if at is None else length(max(0, int(now - at))) for at in ages]
    counts = ["-" if about[name] is None else f"{about[name]:,}" for name in ("waiting", "refused")]
    return [about["status"], about["name"], *shown, *counts, about["last_error"] or about["text"]]


HEADER = ["STATUS", "COLLECTOR", "GOOD RUN", "NEW DATA", "STATE FILE", "WAITING", "REFUSED", "LAST ERROR"]


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each collector that has its journal in the given directories, the worst first.

    Returns:
        0, 1, 2 or 3, as for Nagios.
    """
    parser = argparse.ArgumentParser(prog="python -m n6_stateful.health", description=main.__doc__)
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="a cache_dir of collectors")
    parser.add_argument("--json", action="store_true", help="as JSON, one collector a line; times in seconds")
    args = parser.parse_args(argv)
    now = time.time()
    rows = [describe(journal, now) for directory in args.directories for journal in journals_in(directory)]
    rows.sort(key=lambda about: (-LEVELS.index(about["status"]), about["name"]))
    lines = [HEADER, *(_columns(about, now) for about in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if args.json:
        print(*map(json.dumps, rows), sep="\n")
    for line in () if args.json else lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    return max((LEVELS.index(about["status"]) for about in rows), default=UNKNOWN)


if __name__ == "__main__":
    sys.exit(main())
