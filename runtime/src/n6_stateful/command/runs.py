"""`runs` and `status`: what the collector did, and how it is."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

from n6_stateful.errors import ConfigError
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
        from n6_stateful.command.plot import plot

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
