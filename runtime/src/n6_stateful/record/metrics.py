"""Metrics for Prometheus, in a file for node_exporter's textfile collector.

All are gauges with the labels `source` and `collector` (the name of the class). Times are seconds since the
epoch, and 0 for never: an alert on an age then counts from the first run.

    n6_collector_last_run_timestamp_seconds        when the last run ended
    n6_collector_last_run_exit_code                with which exit code; -1 if it was killed
    n6_collector_last_run_duration_seconds         how long it took
    n6_collector_last_run_messages                 how many messages it published
    n6_collector_last_success_timestamp_seconds    when the last run ended that ended well
    n6_collector_last_new_data_timestamp_seconds   when the last run ended that brought anything
    n6_collector_failed_runs                       how many runs have failed since the last good one
    n6_collector_first_run_timestamp_seconds       when the first run ended that is recorded
    n6_collector_broken_states                     how many broken states were set aside
    n6_collector_spool_waiting_messages            how many messages wait in the spool
    n6_collector_spool_refused_messages            how many of them the broker has refused
    n6_collector_spool_oldest_timestamp_seconds    when the oldest of them was put there

The last three are there if there is a spool, the very last if something waits in it. There is no counter of
messages: what a history of the last runs adds up to falls when an old run leaves it, and Prometheus would
take that for a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from n6_stateful.errors import ConfigError
from n6_stateful.extras import needs_extra
from n6_stateful.record.run import Health, RunRecord

if TYPE_CHECKING:
    from n6_stateful.output.spool import Backlog

# node_exporter refuses a metric that has two texts, from collectors with different versions of this: leave
# them as they are.
ABOUT = {
    "last_run_timestamp_seconds": "When the last run ended",
    "last_run_exit_code": "The exit code of the last run, -1 if it was killed",
    "last_run_duration_seconds": "How long the last run took",
    "last_run_messages": "How many messages the last run published",
    "last_success_timestamp_seconds": "When the last run ended that ended well, 0 if there was none",
    "last_new_data_timestamp_seconds": "When the last run ended that brought anything, 0 if there was none",
    "failed_runs": "How many runs have failed since the last good one",
    "first_run_timestamp_seconds": "When the first run ended that is recorded",
    "broken_states": "How many broken states were set aside",
    "spool_waiting_messages": "How many messages wait in the spool",
    "spool_refused_messages": "How many messages in the spool the broker has refused",
    "spool_oldest_timestamp_seconds": "When the oldest message in the spool was put there",
}


def write(
    directory: Path,
    labels: tuple[str, str],
    records: Sequence[RunRecord],
    backlog: Backlog | None,
    broken: int = 0,
) -> None:
    """Write `n6_<source>.<collector>.prom`, in one step.

    Args:
        directory: node_exporter's `--collector.textfile.directory`.
        labels: `source` and `collector`.
        records: of the runs, oldest first.
        backlog: what waits in the spool; None if there is none.
        broken: how many broken states were set aside.

    Raises:
        ConfigError: prometheus_client is not installed.
        OSError: the file cannot be written.
    """
    client = _client()
    last, good, new, failed = Health.of(records)
    if last is None:
        return  # the only run so far was turned away
    code = -1 if last.exit_code is None else last.exit_code
    times = good.heard if good else 0, new.heard if new else 0
    first = min(each.heard for each in records)
    values = last.heard, code, last.heard - last.start, last.messages, *times, failed, first, broken
    registry = client.CollectorRegistry()
    for (name, about), value in zip(ABOUT.items(), (*values, *(backlog or ())), strict=False):
        if value is None:  # nothing waits
            break
        gauge = client.Gauge(f"n6_collector_{name}", about, ["source", "collector"], registry=registry)
        gauge.labels(*labels).set(value)
    path = directory / f"n6_{'.'.join(labels)}.prom"
    client.write_to_textfile(str(path), registry)
    path.chmod(0o644)  # node_exporter is another user


def try_directory(directory: Path) -> str:
    """Find out whether `write` could write there, and say where that is.

    Raises:
        ConfigError: prometheus_client is not installed, or this user cannot make a file there.
    """
    _client()
    try:
        TemporaryFile(dir=directory).close()
    except OSError as exc:
        raise ConfigError(f"[monitoring] textfile_dir = {directory}: {exc.strerror}") from exc
    return f"in {directory}"


def _client() -> Any:
    try:
        import prometheus_client
    except ImportError as exc:
        raise needs_extra("[monitoring] textfile_dir", "prometheus", exc) from exc
    return prometheus_client
