"""Metrics for Prometheus, read back by its own parser."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from n6_stateful.record import metrics
from n6_stateful.record.run import RunRecord
from tests.record.test_history import record


def read(directory: Path, *records: RunRecord, waiting: int = 0) -> dict[str, float]:
    """The values by their names."""
    file = metrics.write(directory, "my-provider.my-channel", "MyFeedCollector", records, waiting)
    found = {}
    for family in text_string_to_metric_families(file.read_text()):
        (sample,) = family.samples
        assert sample.labels == {"source": "my-provider.my-channel", "collector": "MyFeedCollector"}
        assert family.type == "gauge"
        assert family.documentation
        found[sample.name.removeprefix("n6_collector_")] = sample.value
    return found


class TestMetrics:
    """What is in the file."""

    def test_values(self, tmp_path: Path) -> None:
        """The last run, the last good one, and the last that brought anything."""
        records = record(1, 0, 5), record(2, 0, 0), record(3, 69, 0)
        assert read(tmp_path, *records, waiting=4) == {
            "last_run_timestamp_seconds": records[2].start_time.timestamp(),
            "last_run_exit_code": 69,
            "last_run_duration_seconds": 0,
            "last_run_messages": 0,
            "last_success_timestamp_seconds": records[1].start_time.timestamp(),
            "last_new_data_timestamp_seconds": records[0].start_time.timestamp(),
            "failed_runs": 1,
            "spool_waiting_messages": 4,
        }

    def test_never(self, tmp_path: Path) -> None:
        """Without any good run the times are 0, so that an alert on their age fires."""
        found = read(tmp_path, record(1, 78))
        assert found["last_success_timestamp_seconds"] == found["last_new_data_timestamp_seconds"] == 0

    def test_atomic(self, tmp_path: Path) -> None:
        """There is one file, replaced as a whole."""
        for number in range(3):
            read(tmp_path, record(number))
        (file,) = tmp_path.iterdir()
        assert file.name == "n6_collector_my-provider.my-channel.MyFeedCollector.prom"

    def test_no_directory(self, tmp_path: Path) -> None:
        """A directory that is not there is an error of the system, for the caller to warn of."""
        with pytest.raises(OSError, match="No such file"):
            read(tmp_path / "none", record(1))
