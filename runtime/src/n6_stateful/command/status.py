"""`status`: one line and an exit code as the plugins of Nagios and Icinga have them
(https://www.monitoring-plugins.org/doc/guidelines.html)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from n6_stateful.errors import ConfigError, N6StatefulError
from n6_stateful.record.recording import count_broken, find_backlog, find_history, find_records, one_line
from n6_stateful.record.run import AHEAD, Health

if TYPE_CHECKING:
    from argparse import Namespace

    from n6_stateful.collector import AbstractBaseCollector

OK, WARNING, CRITICAL, UNKNOWN = range(4)
LEVELS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
# Of one, and of several.
FAILED = "run failed", "runs failed in a row"
WAITS = "message has waited in the spool for", "messages wait in the spool, the oldest for"
REFUSED = "message in the spool was refused", "messages in the spool were refused"
BROKEN = "broken state was", "broken states were"
IN_FUTURE = "the last run that is recorded began in the future: has the clock been set back?"


def status(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Print the line, and return the code."""
    try:
        if args.warning > args.critical:
            raise ConfigError("--warning must not be more than --critical")
        collector = collector_class(**collector_class.get_script_init_kwargs())
        level, text = judge(collector, args, time.time())
    except (N6StatefulError, OSError) as exc:
        level, text = UNKNOWN, _line(exc).replace("|", "/")
    print(LEVELS[level], "-", text)
    return level


def judge(collector: AbstractBaseCollector, args: Namespace, now: float) -> tuple[int, str]:
    """The level, and the text with its performance data.

    Args:
        collector: the collector.
        args: `warning`, `critical` and `no_data`, seconds.
        now: the time, seconds since the epoch.
    """
    records = find_records(collector)
    last, good, new, failed = Health.of(each for each in records if each.is_over)
    running = next((each for each in records if not each.is_over), None)
    if last is None and running is None:
        return UNKNOWN, "no run is recorded"
    broken = count_broken(collector)
    found = [] if good or not last else [(CRITICAL, "no run has ended well")]
    data = []
    waiting, refused, oldest = _tried(find_backlog, found) or (0, 0, None)
    if history := find_history(collector):
        _tried(history.prove_writable, found, "the next run cannot be recorded: ")
    new_data: tuple[float | None, str] = (new and new.heard, "last new data {} ago")
    if new is None and good:
        first = min(each.heard for each in records)
        new_data = first, "no new data since the first run that is recorded, {} ago"
    limits = args.warning, args.critical
    for label, since, text, warning, critical in (
        ("last_good", good and good.heard, "last good run {} ago", *limits),
        ("new_data", *new_data, args.no_data, None),
        ("running", running and running.start, "a run has been in progress for {}", *limits),
        ("spool_oldest", oldest, f"{_count(waiting, WAITS)} {{}}", *limits),
    ):
        if since is not None and since > now + AHEAD:
            found.append((WARNING, IN_FUTURE))
        elif since is not None:
            age = max(0, int(now - since))
            level = CRITICAL if critical is not None and age >= critical else WARNING * (age >= warning)
            found.append((level, text.format(_length(age))))
            data.append(f"{label}={age}s;{warning};{'' if critical is None else critical};0")
    for label, count, text in (
        ("failed", failed, f"{_count(failed, FAILED)}: {last.error if last else ''}"),
        ("spool_waiting", waiting, ""),
        ("spool_refused", refused, f"{_count(refused, REFUSED)} by the broker (`spool list`)"),
        ("broken_states", broken, f"{_count(broken, BROKEN)} set aside for you to look at (`state show`)"),
    ):
        data.append(f"{label}={count};;;0")
        if count and text:
            found.append((WARNING, text))
    found.sort(key=lambda each: -each[0])
    # A bar begins the performance data.
    text = "; ".join(dict.fromkeys(text for _, text in found)).replace("|", "/")
    return found[0][0], f"{text} | {' '.join(data)}"


def _tried(look: Any, found: list[tuple[int, str]], what: str = "") -> Any:
    try:
        return look()
    except (N6StatefulError, OSError) as exc:
        found.append((WARNING, what + _line(exc)))
        return None


def _line(exc: Exception) -> str:
    return one_line(" ".join(str(exc).split()))


def _count(count: int, texts: tuple[str, str]) -> str:
    return f"{count:,} {texts[count != 1]}"


def _length(seconds: int) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
