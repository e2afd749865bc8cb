"""Runs as processes: many at once, killed, terminated."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.delivery.conftest import RabbitMQ

ROOT = Path(__file__).resolve().parents[2]


class Site:
    """A directory in which a gated collector is run."""

    def __init__(self, directory: Path, broker: RabbitMQ) -> None:
        self.cache, self.gate, self.feed = directory / "cache", directory / "gate", directory / "feed"
        self.config = directory / "60_growing.conf"
        self.broker = broker
        self.processes: list[subprocess.Popen[str]] = []
        os.mkfifo(self.gate)
        self.feed.write_bytes(b"one\ntwo")
        self.configure()

    def configure(self, journal_url: str = "") -> None:
        self.config.write_text(
            f"[growing]\nsource = my-source\ncache_dir = {self.cache}\nurl = {self.feed}\n"
            f"gate = {self.gate}\nexchange = {self.broker.exchange}\n"
            f"[output]\nurl = {self.broker.url}\n[journal]\nurl = {journal_url}\n"
        )

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.stories.program", "--config", str(self.config)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        self.processes.append(process)
        return process

    def start_and_wait(self) -> subprocess.Popen[str]:
        """Start a run, and wait until it is collecting."""
        process = self.start()
        assert process.stdout
        for line in process.stdout:
            if line == "collecting\n":
                return process
        raise AssertionError("it never collects")

    def open_gate(self) -> None:
        self.gate.open("wb").close()

    def state(self) -> object:
        (path,) = self.cache.glob("*.pickle")
        return pickle.loads(path.read_bytes())


@pytest.fixture
def site(tmp_path: Path, broker: RabbitMQ) -> Iterator[Site]:
    broker.bind()
    site = Site(tmp_path, broker)
    yield site
    for process in site.processes:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql", "mariadb"])
def test_ten_at_once(engine: str, site: Site, shared_database: Callable[[str], str]) -> None:
    """Of ten runs at once one runs, and nine end with 75; nothing is published twice."""
    site.configure("" if engine == "sqlite" else shared_database(engine))
    first = site.start_and_wait()
    others = [site.start() for _ in range(9)]
    texts = [other.communicate()[0] for other in others]
    assert [other.returncode for other in others] == [75] * 9, texts
    assert all("another run is in progress" in text for text in texts)
    site.open_gate()
    text, _ = first.communicate()
    assert first.returncode == 0, text
    assert [message.body for message in site.broker.receive()] == [b"one", b"two"]


def test_killed(site: Site) -> None:
    """A run that is killed leaves no lock, and the next one collects what it had not committed."""
    process = site.start_and_wait()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    second = site.start_and_wait()
    site.open_gate()
    text, _ = second.communicate()
    assert second.returncode == 0, text
    assert [message.body for message in site.broker.receive()] == [b"one", b"two"]
    assert site.state() == {"collected": 2}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(number: signal.Signals, code: int, site: Site) -> None:
    """A run that is interrupted or terminated ends with its own exit code, and nothing is lost."""
    process = site.start_and_wait()
    process.send_signal(number)
    text, _ = process.communicate()
    assert process.returncode == code, text
    assert "Traceback" not in text
    assert site.broker.receive() == []
    second = site.start_and_wait()
    site.open_gate()
    second.communicate()
    assert len(site.broker.receive()) == 2
