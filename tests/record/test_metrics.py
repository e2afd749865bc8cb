"""Metrics for Prometheus, read back by its own parser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from n6_stateful.output.spool import Backlog
from n6_stateful.record import metrics
from n6_stateful.record.run import RunRecord
from tests.record.conftest import NAME, Host
from tests.record.test_history import record

PAGE = Path(__file__).parents[2] / "docs/monitoring.md"
LABELS = ("my-provider.lines", "WatchedCollector")


def parsed(file: Path) -> dict[str, float]:
    """The values by their names, without what all begin with."""
    found = {}
    for family in text_string_to_metric_families(file.read_text()):
        (sample,) = family.samples
        assert sample.labels == dict(zip(("source", "collector"), LABELS, strict=True))
        assert family.type == "gauge"
        assert family.documentation
        found[sample.name.removeprefix("n6_collector_")] = sample.value
    return found


def written(
    directory: Path, *records: RunRecord, backlog: Backlog | None = None, broken: int = 0
) -> dict[str, float]:
    """What is in the one file after these runs."""
    metrics.write(directory, LABELS, records, backlog, broken)
    (file,) = directory.iterdir()
    assert file.name == "n6_my-provider.lines.WatchedCollector.prom"
    return parsed(file)


class TestValues:
    """What is in the file."""

    def test_all(self, tmp_path: Path) -> None:
        """The last run, the last good one, the last that brought anything, and the spool."""
        runs = record(1, 0, 5), record(2, 0, 0), record(3, 69, 2)
        assert written(tmp_path, *runs, backlog=Backlog(4, 1, 5.0), broken=2) == {
            "last_run_timestamp_seconds": runs[2].end,
            "last_run_exit_code": 69,
            "last_run_duration_seconds": 5,
            "last_run_messages": 2,
            "last_success_timestamp_seconds": runs[1].end,
            "last_new_data_timestamp_seconds": runs[0].end,
            "failed_runs": 1,
            "first_run_timestamp_seconds": runs[0].end,
            "broken_states": 2,
            "spool_waiting_messages": 4,
            "spool_refused_messages": 1,
            "spool_oldest_timestamp_seconds": 5,
        }

    def test_never(self, tmp_path: Path) -> None:
        """Without any good run the times are 0."""
        found = written(tmp_path, record(1, 78))
        assert found["last_success_timestamp_seconds"] == found["last_new_data_timestamp_seconds"] == 0
        assert "spool_waiting_messages" not in found

    def test_killed(self, tmp_path: Path) -> None:
        """A run that was killed has no exit code, so -1 stands for it."""
        assert written(tmp_path, record(1, None))["last_run_exit_code"] == -1

    def test_nothing_waits(self, tmp_path: Path) -> None:
        """As long as nothing waits, nothing is the oldest."""
        found = written(tmp_path, record(1), backlog=Backlog(0, 0, None))
        assert (found["spool_waiting_messages"], "spool_oldest_timestamp_seconds" in found) == (0, False)

    def test_turned_away(self, tmp_path: Path) -> None:
        """A run that another one turned away says nothing."""
        assert written(tmp_path, record(1), record(2, 75))["last_run_exit_code"] == 0
        metrics.write(tmp_path / "none", LABELS, [record(1, 75)], None)

    def test_documented(self) -> None:
        """The module's docstring lists what there is, and so does docs/monitoring.md."""
        listed = re.findall(r"^ {4}n6_collector_(\w+)", metrics.__doc__ or "", re.MULTILINE)
        assert listed == list(metrics.ABOUT)
        assert re.findall(r"^\| `n6_collector_(\w+)` \|", PAGE.read_text(), re.MULTILINE) == listed

    @pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Debian's package prometheus")
    def test_conventions(self, tmp_path: Path) -> None:
        """Prometheus' own linter has nothing against names, units and texts."""
        written(tmp_path, record(1), backlog=Backlog(1, 0, 5.0))
        (file,) = tmp_path.iterdir()
        with file.open() as text:
            done = subprocess.run(
                ["promtool", "check", "metrics"], stdin=text, capture_output=True, text=True
            )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


class TestRuns:
    """The file after real runs."""

    def test_good_and_failed(self, host: Host) -> None:
        """Each run replaces the file, also one that fails; others may read it."""
        directory = host.directory / "metrics"
        directory.mkdir()
        host.configure("monitoring", textfile_dir=str(directory))
        host.collect("publish publish")
        (file,) = directory.iterdir()
        good = parsed(file)
        assert (good["last_run_exit_code"], good["last_run_messages"], good["failed_runs"]) == (0, 2, 0)
        assert good["spool_waiting_messages"] == 2
        assert file.stat().st_mode & 0o777 == 0o644
        (host.cache / f"{NAME}.broken-1").touch()
        host.collect("fail")
        assert list(directory.iterdir()) == [file]
        failed = parsed(file)
        assert (failed["last_run_exit_code"], failed["failed_runs"], failed["broken_states"]) == (1, 1, 1)
        assert failed["last_success_timestamp_seconds"] == good["last_success_timestamp_seconds"]

    def test_no_directory(self, host: Host) -> None:
        """A directory that is not there is one warning that names it, and an error of `check`; the run is
        recorded all the same."""
        directory = host.directory / "none"
        host.configure("monitoring", textfile_dir=str(directory))
        done = host.collect("publish", "--log-level", "warning")
        assert done.returncode == 0
        assert done.stderr.count(f"the metrics could not be written to {directory}: ") == 1
        assert "could not be recorded" not in done.stderr
        assert len(host.records) == 1
        tried = host.command("check")
        assert (tried.returncode, f"textfile_dir = {directory}: No such file" in tried.stdout) == (78, True)
        directory.mkdir()
        tried = host.command("check")
        assert (tried.returncode, f"metrics: ok, in {directory}\n" in tried.stdout) == (0, True)
        assert not list(directory.iterdir())

    def test_turned_away(self, host: Host) -> None:
        """A run that another one turned away leaves the metrics as they are; one that was killed shows in
        those of the next one."""
        directory = host.directory / "metrics"
        directory.mkdir()
        host.configure("monitoring", textfile_dir=str(directory))
        host.collect("publish")
        (file,) = directory.iterdir()
        before = file.read_text()
        process = host.collect_and_wait()
        assert host.command().returncode == 75
        process.kill()
        process.communicate(timeout=60)
        assert file.read_text() == before
        host.collect("fail")
        assert parsed(file)["failed_runs"] == 2

    def test_broken_spool(self, host: Host) -> None:
        """A spool that cannot be read fails the run, and the metrics say so."""
        host.configure("monitoring", textfile_dir=str(host.directory))
        (host.directory / "spool").write_bytes(bytes(4096))
        assert host.collect("publish").returncode == 69
        (file,) = host.directory.glob("*.prom")
        assert parsed(file)["last_run_exit_code"] == 69

    def test_missing(self, host: Host) -> None:
        """Without prometheus_client one line names what to install, as a whole; so does `check`."""
        host.configure("monitoring", textfile_dir=str(host.directory))
        absent = host.directory / "absent"
        absent.mkdir()
        (absent / "prometheus_client.py").write_text("raise ImportError('not here')")
        host.env["PYTHONPATH"] = os.pathsep.join([str(absent), *sys.path])
        done = host.collect("publish")
        assert done.returncode == 0
        advice = rf"{sys.executable} -m pip install '.*\[prometheus\].*'$"
        assert re.search(f"could not be written to {host.directory}: .* {advice}", done.stderr, re.MULTILINE)
        tried = host.command("check")
        assert (tried.returncode, bool(re.search(advice, tried.stdout, re.MULTILINE))) == (78, True)
