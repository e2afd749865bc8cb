"""`status`: one line and an exit code as monitoring plugins have them (Nagios, Icinga, Zabbix agents, ...).

https://www.monitoring-plugins.org/doc/guidelines.html has the rules of the line and of the codes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from n6_stateful import settings
from n6_stateful.config import ConfigFiles
from n6_stateful.errors import ConfigError, N6StatefulError
from n6_stateful.output.choice import find_spool
from n6_stateful.record.history import history_of, records
from n6_stateful.record.run import RunRecord
from n6_stateful.record.summary import Summary
from n6_stateful.state.mixin import CollectorWithStateMixin

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from n6_stateful.collector import AbstractBaseCollector

LEVELS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


class Around(NamedTuple):
    """What there is beside the records: messages in the spool, broken states, a run in progress."""

    waiting: int
    set_apart: int
    broken: int
    is_running: bool


def status(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Print the line, and return the code."""
    try:
        collector = collector_class(**collector_class.get_script_init_kwargs())
        level, text = judge(
            records(history_of(collector)), around(collector), datetime.now(UTC), args.warning, args.critical
        )
    except N6StatefulError as exc:
        level, text = 3, str(exc).partition("\n")[0]
    print(f"{LEVELS[level]} - {text}")
    return level


def around(collector: Any) -> Around:
    """Look at the spool, the state's store and the lock."""
    waiting = set_apart = 0
    wanted = settings.current()
    override = wanted.output if isinstance(wanted.output, str) else None
    try:
        spool = find_spool(ConfigFiles.from_paths(wanted.config_paths), override)
    except ConfigError:
        pass  # there is none
    else:
        for each in spool.messages():
            waiting += 1
            set_apart += each.refused is not None
    if not isinstance(collector, CollectorWithStateMixin):
        return Around(waiting, set_apart, 0, False)
    store = collector.state_store
    return Around(waiting, set_apart, len(store.set_aside_names()), store.holder() is not None)


def judge(
    found: Sequence[RunRecord], around: Around, now: datetime, warning: int, critical: int
) -> tuple[int, str]:
    """The level (0 to 3) and the text with its performance data.

    Args:
        found: the records, oldest first.
        around: what there is beside them.
        now: the time, with its timezone.
        warning: seconds since the last good run from which that is a warning; also for a run in progress.
        critical: the same for critical.
    """
    summary = Summary.of(found)
    problems: list[tuple[int, str]] = []
    current = found[-1] if found and found[-1].exit_code is None and around.is_running else None
    age = _age(summary.last_good, now)
    if age is None:
        problems.append((3, "no run has ended yet") if not found or current else (2, "no run has ended well"))
    elif age >= warning:
        problems.append((1 + (age >= critical), f"the last good run was {_told(age)} ago"))
    failed = summary.failed_in_a_row - (current is not None)
    if failed > 0:
        last = next(each for each in reversed(found) if not each.is_good and each is not current)
        problems.append((1, f"{failed} failed since: {last.error or f'exit {last.exit_code}'}"))
    if current is not None and (running := _age(current, now) or 0) >= warning:
        problems.append((1 + (running >= critical), f"a run has been in progress for {_told(running)}"))
    if around.set_apart:
        problems.append((1, f"{around.set_apart} messages in the spool are refused by the broker"))
    if around.broken:
        problems.append((1, f"{around.broken} broken states lie about (`state show`)"))
    new_data = _age(summary.last_new_data, now)
    good = f"the last good run was {_told(age)} ago" if age is not None else "nothing is known"
    text = "; ".join(each for _, each in sorted(problems, reverse=True)) or good
    told = f"; new data {_told(new_data)} ago" if new_data is not None else ""
    waiting = f"; {around.waiting} messages wait in the spool" if around.waiting else ""
    data = {
        "last_good": f"{age}s;{warning};{critical};0" if age is not None else "U",
        "new_data": f"{new_data}s;;;0" if new_data is not None else "U",
        "failed": f"{max(failed, 0)};;;0",
        "spool_waiting": f"{around.waiting};;;0",
        "spool_set_apart": f"{around.set_apart};;;0",
        "broken_states": f"{around.broken};;;0",
    }
    performance = " ".join(f"{name}={value}" for name, value in data.items())
    # What the plugins' rules give a meaning to may stand in an error, too.
    line = f"{text}{told}{waiting}".replace("|", "/").replace("\n", " ")
    return max((level for level, _ in problems), key=(0, 1, 3, 2).index, default=0), f"{line} | {performance}"


def _age(record: RunRecord | None, now: datetime) -> int | None:
    if record is None:
        return None
    return max(0, int((now - (record.end_time or record.start_time)).total_seconds()))


def _told(age: int) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if age >= 2 * size:
            return f"{age // size} {unit}"
    return f"{age} s"
