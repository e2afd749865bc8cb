"""`runs`: what the collector did, and when."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from n6_stateful.errors import N6StatefulError
from n6_stateful.record.history import to_json
from n6_stateful.record.plot import bars, plot
from n6_stateful.record.recording import find_records
from n6_stateful.record.run import RunRecord

if TYPE_CHECKING:
    from argparse import Namespace

    from n6_stateful.collector import AbstractBaseCollector

BARS = 60
LINE = "{:19} {:>9} {:>4} {:>11} {:>15}  {:8}  {}"
HEADER = LINE.format("START (UTC)", "SECONDS", "EXIT", "MESSAGES", "BYTES", "STATE", "NEWEST, ERROR")


def runs(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Print a line for each run, the newest first, or JSON; or draw a picture."""
    found = find_records(collector_class(**collector_class.get_script_init_kwargs()))
    found = [each for each in found if each.start >= time.time() - args.since] if args.since else found
    found = found[-args.last :] if args.last else found
    newest_first, over = found[::-1], [each for each in found if each.is_over]
    if args.plot:
        try:
            plot(over, f"Runs of {collector_class.__name__}", time.time(), args.plot)
        except OSError as exc:
            raise N6StatefulError(f"{args.plot}: cannot be written: {exc.strerror}") from exc
    elif args.json:
        sys.stdout.writelines(f"{to_json(each)}\n" for each in newest_first)
    else:
        if sys.stdout.isatty():
            print(bars(over[-BARS:]))
        print(HEADER, *map(as_line, newest_first), sep="\n")
    return 0


def as_line(record: RunRecord) -> str:
    """A run, for people."""
    return LINE.format(
        f"{datetime.fromtimestamp(record.start, UTC):%Y-%m-%d %H:%M:%S}",
        f"{record.end - record.start:,.1f}" if record.end else "",
        "" if record.exit_code is None else record.exit_code,
        f"{record.messages:,}",
        f"{record.bytes:,}",
        record.generation_after[:8],
        ", ".join(filter(None, (record.newest, record.error))),
    ).rstrip()
