"""`runs`: what the collector did, and when."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from n6_stateful.duration import seconds
from n6_stateful.errors import N6StatefulError
from n6_stateful.record.history import history_of, records
from n6_stateful.record.run import RunRecord

if TYPE_CHECKING:
    from argparse import Namespace

    from n6_stateful.collector import AbstractBaseCollector

SHOWN = 20
WIDTH = 60


def runs(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Print the last runs, newest first; or write them as JSON, or as a picture."""
    collector = collector_class(**collector_class.get_script_init_kwargs())
    found = records(history_of(collector))
    if args.since is not None:
        oldest = datetime.now(UTC) - timedelta(seconds=args.since)
        found = [each for each in found if each.start_time >= oldest]
    if args.last is not None:
        found = found[-args.last :]
    if args.plot is not None:
        from n6_stateful.record.plot import plot

        try:
            plot(found, f"{collector_class.__name__}: messages of each run", args.plot)
        except OSError as exc:
            raise N6StatefulError(f"{args.plot}: cannot be written: {exc.strerror}") from exc
        print(f"drew {len(found):,} runs into {args.plot}")
    elif args.json:
        print(json.dumps([each._asdict() for each in reversed(found)], indent=2, ensure_ascii=False))
    else:
        if sys.stdout.isatty():
            from n6_stateful.record.plot import bars

            print(bars(found, WIDTH))
        shown = found if args.last or args.since else found[-SHOWN:]
        for each in reversed(shown):
            print(line(each))
        if len(shown) < len(found):
            print(f"... and {len(found) - len(shown):,} older ones (--last N, --since 7d)")
        if not found:
            print("no runs yet")
    return 0


def line(record: RunRecord) -> str:
    """A run, for people."""
    end = record.end_time
    took = f"{(end - record.start_time).total_seconds():8.1f} s" if end else f"{'?':>10}"
    code = "?" if record.exit_code is None else str(record.exit_code)
    newest = f"  newest {record.newest}" if record.newest else ""
    error = f"  {record.error}" if record.error else ""
    return (
        f"{record.start_time:%Y-%m-%dT%H:%M:%SZ} {took}  exit {code:3}  {record.messages:9,} messages"
        f"  {record.bytes:13,} bytes{newest}{error}"
    )


def length(text: str) -> int:
    """A length of time on the command line, seconds."""
    return seconds(text)
