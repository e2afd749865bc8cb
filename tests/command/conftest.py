"""A collector, a directory with its configuration and its feed, and its command, run in this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from n6_stateful import BaseCollector, CollectorWithStateMixin, NothingNew, PublishError, SourceError
from n6_stateful.command import main
from n6_stateful.journal import DEFAULTS, Journal, configured_journal

CONFIG = """
[sample]
source = my-provider
cache_dir = {directory}/cache
feed = {directory}/feed
[output]
url = amqp://user:hunter2@broker.invalid/
"""


ERRORS = {":source": SourceError, ":code": ValueError, ":interrupted": KeyboardInterrupt}


class SampleCollector(CollectorWithStateMixin, BaseCollector):
    """Each line of the feed is a record, published once; one that begins with a colon names an error."""

    type = "stream"
    config_spec = """
        [sample]
        source :: str
        cache_dir :: path
        feed :: path
    """
    left_out = 0

    def make_default_state(self) -> Any:
        return {"taken": 0}

    def run(self) -> None:
        self.state = self.load_state()
        super().run()
        self.save_state(self.state)

    def start_publishing(self) -> None:
        lines = Path(self.config["feed"]).read_text().splitlines()
        if not lines[self.state["taken"] :]:
            raise NothingNew
        for line in lines[self.state["taken"] :]:
            if line.startswith(":"):
                raise ERRORS[line.split()[0]](line)
            self.publish_output(*self.get_output_components(line=line))
        self.state["taken"] = len(lines)

    def get_source_channel(self, **processed_data: Any) -> str:
        return "lines"

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> bytes:
        body: bytes = processed_data["line"].encode()
        return body

    def send(self, journal: Journal) -> int:
        """Deliver into the file `delivered`, unless there is a file `down`."""
        directory = Path(self.config["feed"]).parent
        waiting = list(journal.waiting())
        if waiting and (directory / "down").exists():
            raise PublishError(f"the broker is down; {len(waiting)} messages wait")
        with (directory / "delivered").open("ab") as file:
            file.writelines(message.body + b"\n" for message in waiting)
        journal.delivered([message.id for message in waiting])
        return len(waiting)


class Done(NamedTuple):
    """What a command has left."""

    code: int
    out: str
    err: str


class Host:
    """Where a collector runs."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self._capsys = directory, capsys
        self.collector: type[BaseCollector] = SampleCollector
        self.config = directory / "60_sample.conf"
        self.config.write_text(CONFIG.format(directory=directory))
        self.feed = directory / "feed"
        self.feed.write_text("one\ntwo\n")
        self.down = directory / "down"
        self.journals: list[Journal] = []

    def __call__(self, *argv: str) -> Done:
        """Run the command in this process."""
        self._capsys.readouterr()
        try:
            code = main(self.collector, [*argv, "--config", str(self.config)])
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else 1
        return Done(code, *self._capsys.readouterr())

    def fails(self, code: int, problem: str, *argv: str) -> None:
        """Run a command that ends with `code` and one line with `problem`."""
        done = self(*argv)
        assert (done.code, problem in done.err, done.err.count("\n")) == (code, True, 1), done.err

    def process(self, *argv: str) -> subprocess.Popen[str]:
        """Start the command of `SampleCollector` as a process."""
        argv = (sys.executable, "-m", "tests.command.conftest", *argv, "--config", str(self.config))
        pipe, root = subprocess.PIPE, Path(__file__).parents[2]
        return subprocess.Popen(argv, cwd=root, stdout=pipe, stderr=pipe, text=True)

    @contextmanager
    def locked(self) -> Iterator[Journal]:
        """Another run is in progress."""
        journal = self.journal
        journal.lock()
        yield journal
        journal.unlock()

    def collect(self, *lines: str) -> Done:
        """Add lines to the feed, and run."""
        self.feed.write_text(self.feed.read_text() + "".join(f"{line}\n" for line in lines))
        return self()

    def configure(self, text: str) -> None:
        """Add to the configuration."""
        self.config.write_text(f"{self.config.read_text()}\n{text}\n")

    @property
    def delivered(self) -> list[str]:
        """The bodies that have arrived."""
        file = self.directory / "delivered"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def journal(self) -> Journal:
        """The journal of the collector."""
        name = f"my-provider.lines.{self.collector.__name__}.sqlite"
        self.journals.append(configured_journal(DEFAULTS, self.directory / "cache" / name))
        return self.journals[-1]

    @property
    def last_run(self) -> dict[str, Any]:
        """The last record."""
        (record,) = self.journal.runs(1)
        return record


def state_file(host: Host) -> Path:
    return host.journal.path.with_suffix(".pickle")


@pytest.fixture
def host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Host]:
    """A machine with the sample collector."""
    host = Host(tmp_path, capsys)
    yield host
    for journal in host.journals:
        journal.unlock()


if __name__ == "__main__":
    SampleCollector.run_script()
