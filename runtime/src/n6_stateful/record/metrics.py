"""Metrics for Prometheus, in a file for node_exporter's textfile collector.

All are gauges with the labels `source` and `collector`:

    n6_collector_last_run_timestamp_seconds        when the last run ended
    n6_collector_last_run_exit_code                with which exit code
    n6_collector_last_run_duration_seconds         how long it took
    n6_collector_last_run_messages                 how many messages it published
    n6_collector_last_success_timestamp_seconds    when the last run ended that ended well
    n6_collector_last_new_data_timestamp_seconds   when the last run ended that published anything
    n6_collector_failed_runs                       how many runs have failed since, in a row
    n6_collector_spool_waiting_messages            how many messages wait in the spool
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from n6_stateful.errors import ConfigError
from n6_stateful.record.run import RunRecord
from n6_stateful.record.summary import Summary

ABOUT = {
    "last_run_timestamp_seconds": "When the last run ended",
    "last_run_exit_code": "The exit code of the last run",
    "last_run_duration_seconds": "How long the last run took",
    "last_run_messages": "How many messages the last run published",
    "last_success_timestamp_seconds": "When the last run ended that ended well; 0 if there was none",
    "last_new_data_timestamp_seconds": "When the last run ended that published anything; 0 if there was none",
    "failed_runs": "How many runs have failed since the last good one",
    "spool_waiting_messages": "How many messages wait in the spool",
}


def write(directory: Path, source: str, collector: str, records: Sequence[RunRecord], waiting: int) -> Path:
    """Write the metrics into `directory`, in one step, and return the file's path.

    Args:
        directory: node_exporter's `--collector.textfile.directory`.
        source: the label.
        collector: the label, and part of the file's name.
        records: of the runs, the last of them the one that has just ended.
        waiting: how many messages wait in the spool.

    Raises:
        ConfigError: prometheus_client is not installed.
        OSError: the file cannot be written.
    """
    try:
        from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
    except ImportError as exc:
        raise ConfigError(
            "[monitoring] textfile_dir needs prometheus_client, which is not installed: "
            "pip install prometheus_client (the runtime's extra [prometheus])"
        ) from exc
    summary = Summary.of(records)
    last = records[-1]
    values = {
        "last_run_timestamp_seconds": _seconds(last),
        "last_run_exit_code": -1 if last.exit_code is None else last.exit_code,
        "last_run_duration_seconds": _seconds(last) - last.start_time.timestamp(),
        "last_run_messages": last.messages,
        "last_success_timestamp_seconds": _seconds(summary.last_good),
        "last_new_data_timestamp_seconds": _seconds(summary.last_new_data),
        "failed_runs": summary.failed_in_a_row,
        "spool_waiting_messages": waiting,
    }
    registry = CollectorRegistry()
    for name, value in values.items():
        gauge = Gauge(f"n6_collector_{name}", ABOUT[name], ["source", "collector"], registry=registry)
        gauge.labels(source, collector).set(value)
    path = directory / f"n6_collector_{source}.{collector}.prom"
    write_to_textfile(str(path), registry)
    return path


def _seconds(record: RunRecord | None) -> float:
    if record is None:
        return 0
    return (record.end_time or record.start_time).timestamp()
