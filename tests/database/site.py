"""A collector, its source and its machines, for the tests that kill things."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from pathlib import Path

from n6_stateful.output.spool import Spool
from tests.broker.conftest import Broker
from tests.broker.private_node import until
from tests.crash.killed import received, spooled
from tests.database.attempts import Attempt


class Site:
    """A source that grows, and runs of its collector, whose state is in the database at `url`.

    Args:
        directory: where everything is.
        url: the database's.
        save_every: so many messages; 0 means once, at the end.
        timeout: the `[state]` option.
        broker: where the runs publish to; None for a spool.

    Attributes:
        lines: what the source has.
        hold: while it exists, runs wait before they save.
    """

    def __init__(
        self,
        directory: Path,
        url: str,
        save_every: int = 0,
        timeout: float = 10,
        broker: Broker | None = None,
    ) -> None:
        self.lines: list[bytes] = []
        self.hold = directory / "hold"
        self._directory = directory
        self._save_every = save_every
        self._timeout = timeout
        self._url = url
        self._numbers = itertools.count()
        self._spool = Spool(directory / "spool")
        self._broker = broker
        if broker:
            broker.bind()

    def config(self, url: str | None = None) -> Path:
        """The configuration with which the database is reached at `url`, by default its own."""
        url = self._url if url is None else url
        config = self._directory / f"60_{abs(hash(url))}.conf"
        if config.exists():
            return config
        exchange, output = "raw", f"spool:{self._spool.path}"
        if self._broker:
            exchange, output = self._broker.exchange, self._broker.url
        config.write_text(
            f"[growing]\nsource = provider\ncache_dir = {self._directory}/cache\n"
            f"url = {self._directory}/feed\nexchange = {exchange}\nsave_every = {self._save_every}\n"
            f"[output]\nurl = {output}\n[state]\nurl = {url}\ntimeout = {self._timeout}\n"
        )
        return config

    def grow(self, count: int = 7) -> None:
        """Let the source have more lines; each third is the same, which is no duplicate."""
        begin = len(self.lines)
        self.lines += [b"again" if at % 3 == 2 else b"record %d" % at for at in range(begin, begin + count)]
        feed = self._directory / "feed"
        feed.with_suffix(".new").write_bytes(b"\n".join(self.lines))
        feed.with_suffix(".new").rename(feed)

    def begin(self, *command: str, url: str | None = None, namespace: str | None = None) -> Attempt:
        """Begin a run, or another command; `url` is the way to the database if it is another."""
        argv = [*command, "--config", str(self.config(url)), "--log-level", "warning"]
        return Attempt(argv, self._directory / f"told-{next(self._numbers)}", namespace)

    def run(self, *command: str) -> str:
        """Run it, or another command, to its good end; what it has told."""
        attempt = self.begin(*command)
        code = attempt.wait()
        assert code == 0, attempt.told
        return attempt.told

    def begin_held(self, url: str | None = None) -> Attempt:
        """Begin a run; return when it has published and is about to save."""
        self.hold.touch()
        attempt = self.begin(url=url)
        held = self._directory / f"held-{attempt.pid}"
        until(lambda: held.exists() or attempt.is_over, "the run")
        assert held.exists(), attempt.told
        return attempt

    def begin_frozen(self, url: str | None = None) -> Attempt:
        """Begin a run that has published, is about to save, and is stopped there with SIGSTOP."""
        attempt = self.begin_held(url)
        attempt.send_signal(signal.SIGSTOP)
        self.hold.unlink()
        (self._directory / f"go-{attempt.pid}").touch()
        return attempt

    def judge(self) -> None:
        """See that every line is there, in order, and that what was published twice bears one id."""
        records: dict[str, bytes] = {}
        for each in received(self._broker) if self._broker else spooled(self._spool):
            assert records.setdefault(each.message_id, each.body) == each.body
        lost = Counter(self.lines) - Counter(records.values())
        with_another_id = Counter(records.values()) - Counter(self.lines)
        assert (lost, with_another_id) == (Counter(), Counter())
        if not self._broker:  # there one that was frozen may end its sentence after others
            assert list(records.values()) == self.lines
