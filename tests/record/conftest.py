"""A machine on which a collector runs: its configuration, its feed and its command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from n6_stateful.record.history import from_json
from n6_stateful.record.run import RunRecord
from tests.broker.private_node import until
from tests.record import watched_collector

NAME = "my-provider.lines.WatchedCollector.pickle"
CONFIG = """
[watched]
source = my-provider
cache_dir = {directory}/cache
feed = {directory}/feed

[output]
url = spool:{directory}/spool
"""


class Host:
    """Runs the command of `WatchedCollector` over its own directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cache = directory / "cache"
        self.feed = directory / "feed"
        self.config = directory / "60_watched.conf"
        self.config.write_text(CONFIG.format(directory=directory))
        self.env = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("COVERAGE") or name in ("PATH", "PYTHONPATH")
        }

    def configure(self, section: str, **options: str) -> None:
        """Add a section."""
        lines = "".join(f"{name} = {value}\n" for name, value in options.items())
        self.config.write_text(f"{self.config.read_text()}\n[{section}]\n{lines}")

    def start(self, *argv: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start the command."""
        return subprocess.Popen(
            [sys.executable, watched_collector.__file__, "--config", self.config, *argv],
            env={**self.env, "HOME": str(self.directory)},
            cwd=self.directory,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """What the command says."""
        process = self.start(*argv)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def collect(self, steps: str = "", *argv: str) -> subprocess.CompletedProcess[str]:
        """Run the collector over a feed of these steps."""
        self.feed.write_text(steps)
        return self.command(*argv)

    def collect_and_wait(self) -> subprocess.Popen[str]:
        """A run in the middle of publishing."""
        self.feed.write_text("publish wait")
        waiting = self.directory / "waiting"
        waiting.unlink(missing_ok=True)
        process = self.start()
        until(waiting.exists, "the collector waits")
        return process

    @property
    def records(self) -> list[RunRecord]:
        """What `runs --json` gives, the oldest first."""
        done = self.command("runs", "--json")
        assert done.returncode == 0, done.stderr
        return from_json(reversed(done.stdout.splitlines()))

    def lines(self) -> list[dict[str, Any]]:
        """What is in the file."""
        return [json.loads(line) for line in (self.cache / f"{NAME}.runs").read_text().splitlines()]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine."""
    return Host(tmp_path)
