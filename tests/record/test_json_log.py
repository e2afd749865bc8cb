"""`--log-format json`: a log for machines."""

from __future__ import annotations

import json
import re

from tests.record.conftest import Host
from tests.record.watched_collector import BODY

NOBODY = "amqp://guest:hunter2@127.0.0.1:9/?key=sesame"


class TestLines:
    """An object a line."""

    def test_good(self, host: Host) -> None:
        """Each line has its time, level, logger and message."""
        done = host.collect("publish", "--log-format", "json")
        assert done.returncode == 0
        found = [json.loads(line) for line in done.stderr.splitlines()]
        assert {*found[0]} == {"timestamp", "levelname", "name", "message"}
        assert found[0]["timestamp"].endswith("+00:00")
        assert (found[0]["levelname"], found[0]["name"]) == ("WARNING", "n6_stateful.state.mixin")
        assert "published 1 message" in done.stdout

    def test_traceback(self, host: Host) -> None:
        """A traceback is inside its object, and the error is an object, too."""
        done = host.collect("fail", "--log-format", "json", "--log-level", "error")
        traceback, error = (json.loads(line) for line in done.stderr.splitlines())
        assert traceback["exc_info"].splitlines()[0] == "Traceback (most recent call last):"
        assert BODY.decode() in traceback["exc_info"]
        assert error["message"].startswith("the collector's own code failed (ValueError in __main__")
        assert error["exit_code"] == 1

    def test_secrets(self, host: Host) -> None:
        """It hides what the other format hides."""
        done = host.collect("publish", "--log-format", "json", "--log-level", "debug", "--output", NOBODY)
        assert done.returncode in (69, 78)
        assert all(isinstance(json.loads(line), dict) for line in done.stderr.splitlines())
        assert "hunter2" not in done.stderr
        assert "sesame" not in done.stderr


class TestMissing:
    """Without python-json-logger."""

    def test_missing(self, host: Host) -> None:
        """One line names what to install, and nothing is done."""
        absent = host.directory / "absent"
        absent.mkdir()
        (absent / "pythonjsonlogger.py").write_text("raise ImportError('not here')")
        host.env["PYTHONPATH"] = str(absent)
        done = host.collect("publish", "--log-format", "json")
        assert done.returncode == 78
        (line,) = done.stderr.splitlines()
        assert re.search(r"-m pip install '.*\[json\]'", line)
        assert not host.cache.exists()
