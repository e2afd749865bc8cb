"""`runs` and `status`: what the collector did, as a table or a drawing, and how it is."""

from __future__ import annotations

import json
import logging
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from n6_stateful.errors import ConfigError
from n6_stateful.extras import needs_extra
from n6_stateful.health import LEVELS, Health, Limits, judge, records

LINE = "{:19} {:>9} {:>4} {:>11} {:>15} {:>9} {:>6}  {}"
HEADER = LINE.format(
    "START (UTC)", "SECONDS", "EXIT", "MESSAGES", "BYTES", "WAITING", "STATE", "NEWEST, ERROR"
)


def runs(collector: Any, args: Namespace) -> int:
    """Print a line for each run, the newest first, or JSON; or draw a picture."""
    chosen = records(collector.journal, time.time(), args.last)
    if args.since:
        chosen = [run for run in chosen if run["start"] >= time.time() - args.since]
    if args.plot:
        plot(chosen, f"Runs of {type(collector).__name__}", time.time(), args.plot)
        print(f"the runs are drawn in {args.plot.resolve()}")
    elif args.json:
        sys.stdout.writelines(f"{json.dumps(run)}\n" for run in reversed(chosen))
    else:
        print(HEADER, *map(as_line, reversed(chosen)), sep="\n")
    return 0


def as_line(run: dict[str, Any]) -> str:
    """A run, for people."""
    problem = run.get("error") or ("" if run["end"] else run["outcome"])
    return LINE.format(
        f"{datetime.fromtimestamp(run['start'], UTC):%Y-%m-%d %H:%M:%S}",
        f"{run['end'] - run['start']:,.1f}" if run["end"] else "",
        "" if run["exit_code"] is None else run["exit_code"],
        *(f"{run.get(name, 0):,}" for name in ("messages", "bytes", "waiting")),
        run.get("state_after") or "",
        ", ".join(filter(None, (run.get("newest"), problem))),
    ).rstrip()


def plot(runs: Sequence[Mapping[str, Any]], title: str, now: float, file: Path) -> None:
    """Draw the runs into `file`: the messages of good runs, and the failures, over time until `now`.

    Raises:
        ConfigError: matplotlib is not installed, or does not know that kind of file.
        OSError: the file cannot be written.
    """
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # its first run on a machine logs about fonts
    try:
        from matplotlib import dates as untyped_dates
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as exc:
        raise needs_extra("--plot", "plot", exc) from exc
    dates: Any = untyped_dates  # it has no types
    good = [run for run in runs if run["outcome"] == "ok"]
    times, messages = [_date(run["start"]) for run in good], [run["messages"] for run in good]
    failed = [_date(run["start"]) for run in runs if run["outcome"] not in ("ok", "in progress")]
    first = min([now - 60, *(run["start"] for run in runs)])
    edge = (now - first) / 50
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.vlines(times, 0, messages, colors="0.6", linewidth=1)
    axes.plot(times, messages, "o", color="0.1", markersize=3, label="good run")
    axes.plot(failed, [0] * len(failed), "x", color="#c1121f", zorder=3, clip_on=False, label="failed run")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    axes.set_title(title, loc="left")
    axes.set(xlabel="start of the run (UTC)", xlim=(_date(first - edge), _date(now + edge)))
    axes.set(ylabel="messages of a run", ylim=(0, max([1, *messages]) * 1.05))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_locator(locator := dates.AutoDateLocator())
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(file, dpi=150)
    except ValueError as exc:
        raise ConfigError(f"{file}: {exc}") from exc


def _date(seconds: float) -> Any:
    return datetime.fromtimestamp(seconds, UTC)


def status(collector: Any, args: Namespace) -> int:
    """Print one line with performance data, as the plugins of Nagios and Icinga do
    (https://www.monitoring-plugins.org/doc/guidelines.html), and return their exit code."""
    options = getattr(collector, "config_full", {}).get("monitoring", {})
    limits = Limits.expecting(options.get("expect_every", ""))
    given = {name: getattr(args, name) for name in Limits._fields}
    limits = limits._replace(**{name: value for name, value in given.items() if value is not None})
    if limits.warning > limits.critical:
        raise ConfigError("--warning must not be more than --critical")
    check = judge(Health.read(collector.journal, time.time()), limits)
    print(f"{LEVELS[check.level]} - {check.text} | {check.perfdata}")
    return check.level
