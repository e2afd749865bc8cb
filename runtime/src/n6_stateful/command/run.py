"""`run`, which cron calls, and `check`, which tries everything without asking the source."""

from __future__ import annotations

import logging
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from n6_stateful.command.failures import Failure, failure_of, report
from n6_stateful.command.recording import Recorder
from n6_stateful.errors import ConfigError, N6StatefulError, PublishError, StateError, StateLockedError
from n6_stateful.health import Limits, counted, data_size
from n6_stateful.interruption import raise_if_interrupted
from n6_stateful.message import Message

SHOWN_BYTES = 200  # of a body, in a dry run


def run(collector: Any, args: Namespace) -> int:
    """Run the collector, record the run, and print one closing line."""
    started = time.time()
    failure = Failure(0, "")
    if args.dry_run:
        shown = range(args.limit or sys.maxsize)
        collector.show_message = lambda message: (
            collector.published_count in shown and print(as_text(message))
        )
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


def as_text(message: Message) -> str:
    """A message of a dry run; of a long body, the beginning."""
    lines = [f"{message.exchange} {message.routing_key} ({data_size(len(message.body))})"]
    lines += [f"  {name}: {value}" for name, value in sorted(message.properties.items())]
    body = message.body[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    for line in body.splitlines():
        lines.append("  | " + "".join(char if char.isprintable() else repr(char)[1:-1] for char in line))
    more = len(message.body) - SHOWN_BYTES
    return "\n".join(lines) + (f"\n  | ... and {more:,} bytes more" if more > 0 else "")


def closing_line(collector: Any, seconds: float, *, is_dry: bool | None = False) -> str:
    """What a run has done, in one line."""
    parts = []
    if hasattr(collector, "published_count"):
        what = "would have collected" if is_dry else "collected"
        size = f" ({data_size(collector.published_bytes)})" if collector.published_count else ""
        parts.append(f"{what} {counted(collector.published_count, 'message')}{size}")
        if not is_dry:
            waiting = f"{collector.journal.backlog().messages:,} waiting"
            delivered = f"delivered {collector.delivered_count:,}, {waiting}"
            parts[0] += (
                f", {waiting} in the outbox" if collector.outbox_is_destination() else f", {delivered}"
            )
    if hasattr(collector, "state_number"):
        parts.append(f"state {collector.state_number or 'none'}" + (", unchanged" if is_dry else ""))
    return "; ".join([*parts, f"{max(0.0, seconds):.1f} s"])


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
