"""`run`: what cron calls."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from n6_stateful import settings
from n6_stateful.collector import BaseCollector
from n6_stateful.command.failures import Failure, failure_of, tell
from n6_stateful.errors import PublishError
from n6_stateful.interruption import end_if_forked, raise_if_interrupted
from n6_stateful.publishing import QueuedBase
from n6_stateful.record.recording import Recording
from n6_stateful.state.mixin import CollectorWithStateMixin

if TYPE_CHECKING:
    from argparse import Namespace

    from n6_stateful.collector import AbstractBaseCollector


def run(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Run the collector; on success print one closing line."""
    started = time.time()
    recording: Recording | None = None
    failure: Failure | None = None
    try:
        collector = collector_class(**collector_class.get_script_init_kwargs())
        if isinstance(collector, BaseCollector) and not args.dry_run:
            recording = Recording(collector, started)
        collector.run_handling()
        raise_if_interrupted()  # the collector may have swallowed it
        print(closing_line(collector, time.time() - started))
        if isinstance(collector, QueuedBase) and collector.delivery_problem is not None:
            failure = Failure(PublishError.exit_code, collector.delivery_problem)
    except BaseException as exc:
        end_if_forked()
        failure = failure_of(exc)
    if failure:
        tell(args, failure)
    code, text = failure or (0, "")
    if recording:
        recording.end(time.time(), code, text)
    return code


def closing_line(collector: AbstractBaseCollector, seconds: float) -> str:
    """What a run has done, in one line."""
    parts = []
    dry_run = settings.current().dry_run
    if isinstance(collector, QueuedBase):
        count = collector.published_count
        what = "would have published" if dry_run else "published"
        what += f" {count:,} message{'' if count == 1 else 's'}"
        if count:
            what += f" ({collector.published_bytes:,} bytes)"
            what += "" if dry_run else f" to {collector.output_where}"
        parts.append(what)
    if isinstance(collector, CollectorWithStateMixin):
        kept = ", not changed" if dry_run else ""
        parts.append(f"state generation {collector.state_generation[:8] or 'none'}{kept}")
    return "; ".join([*parts, f"{max(0.0, seconds):.1f} s"])
