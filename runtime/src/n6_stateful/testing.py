"""What a collector's tests stand on: a pytest plugin with one fixture, `make_collector_harness`.

    def test_publishes_what_is_new(make_collector_harness):
        harness = make_collector_harness(MyFeedCollector)
        result = harness.run(Download(b"a record", time_utc="2026-01-01"))
        assert [message.body for message in result.messages] == [b"a record"]
        assert harness.state == {"last_utc": "2026-01-01"}

Everything but the network is real: configuration, state file, exit codes. The messages stay in memory.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest

from n6_stateful import settings
from n6_stateful.collector import BaseCollector
from n6_stateful.command import main
from n6_stateful.config import section_names
from n6_stateful.download import Download
from n6_stateful.errors import PublishError
from n6_stateful.message import Exchange, Message, Undelivered

if TYPE_CHECKING:
    from n6_stateful.output.base import Output


class RunResult(NamedTuple):
    """What one run of the command did.

    Attributes:
        messages: what arrived at the output, in order.
        exit_code: the command's.
        text: what it printed on standard output and standard error.
        crashed: whether it was made to crash.
    """

    messages: list[Message]
    exit_code: int
    text: str
    crashed: bool = False

    @property
    def bodies(self) -> list[bytes]:
        """The messages' bodies."""
        return [message.body for message in self.messages]

    @property
    def message_ids(self) -> list[str]:
        """The messages' ids."""
        return [message.properties["message_id"] for message in self.messages]


class MemoryOutput:
    """An output that keeps what has arrived in `delivered`.

    Args:
        fails: whether it refuses what it is given, as a broker does that nacks it.
    """

    where = "memory"
    problem: str | None = None

    def __init__(self, *, fails: bool = False) -> None:
        self.delivered: list[Message] = []
        self._pending: list[Message] = []
        self._fails = fails

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        """Begin with nothing on its way."""
        self._pending = []

    def publish(self, message: Message) -> None:
        """Take one message on its way."""
        self._pending.append(message)

    def flush(self) -> None:
        """Let what is on its way arrive, or fail."""
        if self._fails and self._pending:
            raise PublishError(
                "the output refused the messages (as the test asked)",
                [
                    Undelivered(m.routing_key, m.properties["message_id"], len(m.body), "refused")
                    for m in self._pending
                ],
            )
        self.delivered += self._pending
        self._pending = []

    def close(self) -> None:
        """`flush`."""
        self.flush()

    def abort(self) -> None:
        """Lose what is on its way."""
        self._pending = []

    def check(self, exchanges: Sequence[Exchange]) -> None:
        """It can always be opened."""


class _Crash(BaseException):
    """Ends a run as a kill would: nothing catches it."""


class CollectorHarness:
    """Runs one collector class, again and again, over one state.

    Args:
        collector_class: the collector; its `_download` is stubbed at each run.
        config_paths: configuration files or directories, as `--config` takes them.
        directory: where the state goes.
    """

    def __init__(
        self, collector_class: type[BaseCollector], config_paths: Sequence[Path], directory: Path
    ) -> None:
        self._collector_class = collector_class
        self._cache_dir = directory / "cache"
        override = directory / "99_harness.conf"
        (section, *_) = section_names(collector_class.config_spec)
        override.write_text(f"[{section}]\ncache_dir = {self._cache_dir}\n")
        self._config_paths = (*map(str, config_paths), str(override))

    @property
    def state(self) -> Any:
        """The state as the last run left it; None if there is none."""
        files = list(self._cache_dir.glob("*.pickle"))
        return pickle.loads(files[0].read_bytes()) if files else None

    def run(
        self,
        download: Any = None,
        *,
        fail_delivery: bool = False,
        crash_before_save: bool = False,
        argv: Sequence[str] = (),
    ) -> RunResult:
        """Run the collector's command once.

        Args:
            download: what the source has: a `Download`, which `_download` hands over if it is newer
                than what the state knows; an exception, which it raises; a function, which takes its
                place (given `only_newer_than`); or None, nothing new. `Ellipsis` leaves the real
                `_download` in place.
            fail_delivery: whether the output refuses the messages.
            crash_before_save: whether the process dies between delivery and `save_state`.
            argv: the command line.
        """
        output = MemoryOutput(fails=fail_delivery)
        members = _stubs(download, crash_before_save)
        return self._run(members, output, argv)._replace(messages=output.delivered)

    def run_against_rabbitmq(self, url: str, download: Any = None) -> RunResult:
        """Run the collector's command once, publishing to RabbitMQ, and read back what has arrived.

        It publishes to an exchange of its own, which is removed again: what n6 takes is not touched. What
        has arrived is read by another client, pika, which has to be installed.

        Args:
            url: the broker, `amqp://...` or `amqps://...`.
            download: as `run` takes it.
        """
        import pika

        name = f"n6-stateful-test-{os.urandom(8).hex()}"
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            channel.exchange_declare(name, "topic", durable=True)
            try:
                channel.queue_declare(name, exclusive=True)
                channel.queue_bind(name, name, "#")
                members = _stubs(download, False) | {"output_queue": {"exchange": name}}
                result = self._run(members, url, ())
                while (got := channel.basic_get(name, auto_ack=True))[0]:
                    frame, properties, body = got
                    given = {key: value for key, value in vars(properties).items() if value is not None}
                    result.messages.append(Message(frame.exchange, frame.routing_key, body, given, ""))
            finally:
                channel.exchange_delete(name)
        return result

    def assert_stateful_contract(self, download: Any, next_download: Any) -> None:
        """Assert what every stateful collector owes, from no state on.

        Args:
            download: what the source has at first, as `run` takes it.
            next_download: what it has later, newer than `download`.
        """
        before = self.state
        refused = self.run(download, fail_delivery=True)
        assert refused.exit_code == PublishError.exit_code, refused.text
        assert self.state == before, "a failed delivery changed the state"

        crashed = self.run(download, crash_before_save=True)
        assert crashed.messages, "nothing was published of the first download"
        assert self.state == before, "the state was saved before everything was delivered"
        repeated = self.run(download)
        assert repeated.exit_code == 0, repeated.text
        assert repeated.message_ids == crashed.message_ids, "a repeated run has other message ids"

        again = self.run(download)
        assert again.exit_code == 0, again.text
        assert not again.messages, "the same data was published twice"

        later = self.run(next_download)
        assert later.exit_code == 0, later.text
        assert later.messages, "newer data was not published"
        assert not set(later.message_ids) & set(repeated.message_ids), "new data has an old message id"

    def _run(self, members: dict[str, Any], output: Output | str, argv: Sequence[str]) -> RunResult:
        """Run the command of the collector class with these members in place of its own."""
        original = self._collector_class
        collectors: list[BaseCollector] = []

        def remember(self: BaseCollector, **kwargs: Any) -> None:
            collectors.append(self)
            original.__init__(self, **kwargs)

        members |= {
            "__init__": remember,
            "__module__": original.__module__,
            "__qualname__": original.__qualname__,
        }
        text = io.StringIO()
        crashed = False
        code = 0
        with (
            settings.use(settings.Settings(config_paths=self._config_paths, output=output)),
            redirect_stdout(text),
            redirect_stderr(text),
        ):
            try:
                code = main(type(original.__name__, (original,), members), list(argv))
            except _Crash:
                crashed = True
            finally:
                for collector in collectors:
                    getattr(collector, "close_state", lambda: None)()
        return RunResult([], code, text.getvalue(), crashed)


def _stubs(download: Any, crash_before_save: bool) -> dict[str, Any]:
    members: dict[str, Any] = {}
    if download is not ...:
        members["_download"] = _stubbed_download(download)
    if crash_before_save:
        members["save_state"] = _crash
    return members


def _crash(self: BaseCollector, state: object) -> None:
    self.flush_output()  # what was published has arrived by then, as with the real save_state
    raise _Crash


def _stubbed_download(download: Any) -> Callable[..., Any]:
    def stub(self: BaseCollector, only_newer_than: Any = None) -> Any:
        if isinstance(download, BaseException):
            raise download
        if isinstance(download, Download):
            return download if only_newer_than is None or download.time_utc > only_newer_than else None
        return download(only_newer_than) if callable(download) else download

    return stub


class MakeCollectorHarness(Protocol):
    """The type of the fixture `make_collector_harness`."""

    def __call__(
        self, collector_class: type[BaseCollector], config_text: str | None = None
    ) -> CollectorHarness: ...


@pytest.fixture
def make_collector_harness(request: pytest.FixtureRequest, tmp_path: Path) -> MakeCollectorHarness:
    """Makes a `CollectorHarness` for a collector class.

    Its configuration is `config_text`; by default what the project has in `etc/NN_*.conf`.
    """

    def make(collector_class: type[BaseCollector], config_text: str | None = None) -> CollectorHarness:
        if config_text is None:
            path = request.config.rootpath / "etc"
        else:
            path = tmp_path / "10_test.conf"
            path.write_text(config_text)
        return CollectorHarness(collector_class, [path], tmp_path)

    return make
