"""The record of a run, from its beginning to its end; `n6_stateful.health` says what is in it."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from n6_stateful import __version__
from n6_stateful.errors import N6StatefulError
from n6_stateful.health import DAY, one_line, write_metrics

LOGGER = logging.getLogger(__name__)

MOST_WARNINGS = 20
ATTRIBUTES = {
    "messages": "published_count",
    "bytes": "published_bytes",
    "delivered": "delivered_count",
    "state_before": "loaded_number",
    "state_after": "state_number",
    "warnings": "left_out",
}


class Recorder(logging.Handler):
    """Writes the record of the run of `collector` that began at `started`, and collects its warnings.

    What cannot be recorded is a warning, and does not fail a run that was good.
    """

    def __init__(self, collector: Any, started: float) -> None:
        super().__init__(logging.WARNING)
        self._collector = collector
        self._options = getattr(collector, "config_full", {}).get("monitoring", {})
        self._log: list[str] = []
        self._record: dict[str, Any] = {"start": round(started, 3), "end": None, "exit_code": None}
        self._record |= {"host": socket.gethostname(), "pid": os.getpid(), "version": __version__}
        self._record |= {"outcome": "in progress", "expect_every": self._options.get("expect_every", "")}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a warning."""
        if len(self._log) < MOST_WARNINGS:
            self._log.append(one_line(record.getMessage()))

    def begin(self) -> None:
        """Record that the run has begun; the journal is open."""
        record, journal = self._record, self._collector.journal
        try:
            before: Mapping[str, Any] = next(iter(journal.runs(1)), {})
            record["first_run"] = before.get("first_run", record["start"])
            record |= {"last_new_data": before.get("last_new_data"), "locked": journal.is_locked}
            journal.put_run(record["start"], record)
        except N6StatefulError as exc:
            LOGGER.warning("the beginning of this run was not recorded: %s", exc)

    def is_repeat(self, exit_code: int, error: str) -> bool:
        """Whether the last outcome that was printed, a day ago at most, was this one, and all since."""
        outcome = _outcome({"exit_code": exit_code, "error": one_line(error), "log": self._log})
        try:
            runs = self._collector.journal.runs()
        except N6StatefulError:
            return False
        for run in reversed(runs):
            if run["start"] != self._record["start"] and (_outcome(run) != outcome or run.get("printed")):
                return _outcome(run) == outcome and bool(run["start"] > time.time() - DAY)
        return False

    def end(self, exit_code: int, error: str, *, printed: bool) -> None:
        """Record how the run has ended, and write the metrics."""
        collector, record = self._collector, self._record
        record |= {key: getattr(collector, attribute, 0) for key, attribute in ATTRIBUTES.items()}
        outcome = {0: "ok", 130: "interrupted", 143: "interrupted"}.get(exit_code, "failed")
        record |= {"end": round(time.time(), 3), "exit_code": exit_code, "outcome": outcome}
        record |= {"error": one_line(error), "log": self._log, "printed": printed}
        record["newest"] = self._newest() if exit_code == 0 else ""
        is_kept = exit_code == 0 or record["state_after"] != record["state_before"]
        if record["messages"] and is_kept:
            record["last_new_data"] = record["end"]
        try:
            journal = collector.journal
            backlog = journal.backlog()
            record |= {"waiting": backlog.messages, "refused": backlog.refused}
            journal.put_run(record["start"], record)
            if directory := self._options.get("textfile_dir"):
                write_metrics(Path(directory).expanduser(), journal)
        except (N6StatefulError, OSError) as exc:
            if str(exc) not in error:
                LOGGER.warning("this run was not recorded, or its metrics: %s", exc)

    def _newest(self) -> str:
        try:
            return one_line(getattr(self._collector, "describe_state", str)())
        except Exception as exc:  # a collector may have its own
            LOGGER.warning("describe_state() failed: %s: %s", type(exc).__name__, one_line(str(exc)))
            return ""


def _outcome(run: Mapping[str, Any]) -> str:
    """What a run has ended with; figures in texts may change."""
    return re.sub(r"\d+", "0", f"{run['exit_code']} {run.get('error')} {run.get('log')}")
