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
import ssl
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest

from n6_stateful import bases, settings
from n6_stateful.bases.emails import TRY_AGAIN
from n6_stateful.collector import BaseCollector
from n6_stateful.command import main
from n6_stateful.download import Download
from n6_stateful.errors import NothingNew, PublishError, SourceError
from n6_stateful.message import Exchange, Message, Undelivered
from n6_stateful.state.mixin import CollectorWithStateMixin

if TYPE_CHECKING:
    from n6_stateful.output.base import Output


# The shapes, and where what the source has is put.
PLACES: Sequence[tuple[type[BaseCollector], str]] = (
    (bases.BaseSimpleEmailCollector, "raw_email_msg"),
    (bases.BasePagedCollector, "download_page"),
    (bases.BaseTimeOrderedRowsCollector, "obtain_orig_data"),
    (bases.BaseSeenItemsCollector, "obtain_items"),
    (bases.BaseSimpleCollector, "obtain_data_body"),
    (bases.BaseDownloadingListCollector, "obtain_data_body"),
)

MOST_LATE_ROWS = 20


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
        collector_class: the collector.
        config_paths: configuration files or directories, as `--config` takes them.
        directory: where the state goes.
    """

    def __init__(
        self, collector_class: type[BaseCollector], config_paths: Sequence[Path], directory: Path
    ) -> None:
        self._collector_class = collector_class
        self._directory = directory
        self._cache_dir = directory / "cache"
        self._options: dict[str, Any] = {"cache_dir": self._cache_dir}
        self._config_paths = tuple(map(str, config_paths))

    @property
    def state(self) -> Any:
        """The state as the last run left it; None if there is none."""
        files = list(self._cache_dir.glob("*.pickle"))
        return pickle.loads(files[0].read_bytes()) if files else None

    def run(
        self,
        source: Any = None,
        *,
        fail_delivery: bool = False,
        crash_before_save: int = 0,
        argv: Sequence[str] = (),
    ) -> RunResult:
        """Run the collector's command once.

        Args:
            source: what the source has, put in the place of the method that gets it there: for `_download` a
                `Download`, which is handed over if it is newer than what the state knows; for the shapes see
                `n6_stateful.bases`. An exception is raised instead; a function takes the method's place, with
                its arguments; None means nothing new; `...` leaves the method as it is.
            fail_delivery: whether the output refuses the messages.
            crash_before_save: at which save of the state, counted from 1 once something was published, the
                process dies, when all that was published has arrived; 0 for none.
            argv: the command line.
        """
        output = MemoryOutput(fails=fail_delivery)
        members = _stubs(self._collector_class, source)
        if crash_before_save:
            members["save_state"] = self._crash_at(crash_before_save)
        return self._run(members, output, argv)._replace(messages=output.delivered)

    def run_against_rabbitmq(self, url: str, source: Any = None) -> RunResult:
        """Run the collector's command once, publishing to RabbitMQ, and read back what has arrived.

        It publishes to an exchange of its own, which is removed again: what n6 takes is not touched. What
        has arrived is read by another client than pika: py-amqp (`amqp`), which must be installed.

        Args:
            url: the broker, `amqp://...` or `amqps://...` (with the system's certificate authorities).
            source: as `run` takes it.
        """
        import amqp

        from n6_stateful.output.broker import broker_of_url

        name = f"n6-stateful-test-{os.urandom(8).hex()}"
        broker = broker_of_url(
            url, {"ssl_ca_certs": "", "ssl_certfile": "", "ssl_keyfile": "", "heartbeat": 0}
        )
        tls = broker.tls is not None and {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": broker.host}
        place = f"{broker.host}:{broker.port}"
        with amqp.Connection(
            place, broker.user, broker.password, virtual_host=broker.vhost, ssl=tls
        ) as connection:
            channel = connection.channel()
            channel.auto_decode = False  # bodies are bytes, whatever their encoding
            channel.exchange_declare(name, "topic", durable=True, auto_delete=False)
            try:
                channel.queue_declare(name, exclusive=True)
                channel.queue_bind(name, name, "#")
                members = _stubs(self._collector_class, source) | {"output_queue": {"exchange": name}}
                result = self._run(members, url, ())
                while (got := channel.basic_get(name, no_ack=True)) is not None:
                    properties = dict(got.properties)
                    if "application_headers" in properties:  # py-amqp's name for it
                        properties["headers"] = properties.pop("application_headers")
                    routing_key = got.delivery_info["routing_key"]
                    result.messages.append(Message(name, routing_key, got.body, properties, ""))
            finally:
                channel.exchange_delete(name)
        return result

    def assert_stateful_contract(self, source: Any, later: Any) -> None:
        """Assert what every stateful collector owes, from no state on; it may save in the middle of a run.

        A collector without a state, as that of a mail, owes no more than that the same gets the same ids. One
        of rows also owes that with `late_by` each row of `later` counts, once, if it comes after all others,
        be it older or as old as they are.

        Args:
            source: what the source has at first, as `run` takes it.
            later: what it has later: the same and more, or something else.
        """
        refused = self.run(source, fail_delivery=True)
        # A collector of mails asks for the mail to be delivered again.
        assert refused.exit_code in (PublishError.exit_code, TRY_AGAIN), refused.text
        crashed = self.run(source, crash_before_save=1)
        assert crashed.messages, f"nothing was published, or what was refused is lost: {crashed.text}"
        repeated = self.run(source)
        assert repeated.exit_code == 0, repeated.text
        assert repeated.message_ids[: len(crashed.messages)] == crashed.message_ids, (
            "what was published before a crash is lost, or has another message id after it"
        )
        again = self.run(source)
        assert again.exit_code == 0, again.text
        if issubclass(self._collector_class, CollectorWithStateMixin):
            assert not again.messages, "the same data was published twice"
        else:
            assert again.message_ids == repeated.message_ids, "the same data has another message id"
        newer = self.run(later)
        assert newer.exit_code == 0, newer.text
        assert newer.messages, "newer data was not published"
        assert not set(newer.message_ids) & set(repeated.message_ids), "new data has an old message id"
        if issubclass(self._collector_class, bases.BaseTimeOrderedRowsCollector) and isinstance(later, bytes):
            self._assert_late_rows(later)

    def _assert_late_rows(self, later: bytes) -> None:
        rows = later.split(b"\n")
        published = b"\n".join(self._with_late_rows("all").run(later).bodies).split(b"\n")
        for number, row in enumerate(rows[:MOST_LATE_ROWS]):
            if row not in published or rows.count(row) > 1:
                continue  # a comment, say, or a collector that publishes something else than the rows
            harness = self._with_late_rows(f"without-{number}")
            result = harness.run(b"\n".join(rows[:number] + rows[number + 1 :]))
            if "get_window_begin" in result.text:
                return  # its times are of a kind that `late_by` does not know
            assert harness.run(later).bodies == [row], f"not what came late, and that once: {row!r}"
            assert not harness.run(later).messages, f"what came late was published twice: {row!r}"

    def _with_late_rows(self, name: str) -> CollectorHarness:
        """A harness beside this one, whose collector takes rows however late they come."""
        harness = CollectorHarness(self._collector_class, (), self._directory / name)
        harness._config_paths = self._config_paths
        harness._options["late_by"] = 36_500 * 86_400
        return harness

    def _crash_at(self, number: int) -> Callable[[Any, Any], None]:
        saves = 0

        def save_state(collector: Any, state: Any) -> None:
            nonlocal saves
            if collector.published_count:
                saves += 1
                if saves == number:
                    collector.flush_output()  # what was published has arrived by then, as with the real one
                    raise _Crash
            self._collector_class.save_state(collector, state)  # type: ignore[attr-defined]

        return save_state

    def _run(self, members: dict[str, Any], output: Output | str, argv: Sequence[str]) -> RunResult:
        """Run the command of the collector class with these members in place of its own."""
        original = self._collector_class
        collectors: list[BaseCollector] = []

        def remember(collector: BaseCollector, **kwargs: Any) -> None:
            original.__init__(collector, **kwargs)
            collectors.append(collector)

        def configure(collector: BaseCollector) -> None:
            original.set_configuration(collector)
            collector.config.update(self._options)

        members |= {
            "__init__": remember,
            "set_configuration": configure,
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
                    if isinstance(collector, CollectorWithStateMixin):
                        collector.close_state()
        return RunResult([], code, text.getvalue(), crashed)


def _stubs(cls: type[BaseCollector], source: Any) -> dict[str, Any]:
    """The method that gets what the source has, replaced."""
    name = next((name for base, name in PLACES if issubclass(cls, base)), "_download")

    def stub(collector: BaseCollector, *args: Any, **named: Any) -> Any:
        args += tuple(named.values())  # n6's guide gives only_newer_than by its name
        if isinstance(source, BaseException):
            raise source
        if callable(source):
            return source(*args)
        if name == "download_page":
            return _page(source or [], *args)
        if name != "_download" and source is None:
            raise SourceError("there is no mail") if name == "raw_email_msg" else NothingNew
        if isinstance(source, Download) and args and args[0] is not None and source.time_utc <= args[0]:
            return None
        return source

    return {} if source is ... else {name: property(stub) if name == "raw_email_msg" else stub}


def _page(pages: Sequence[Sequence[Any]], cursor: Any) -> bases.Page:
    """The first of `pages` that has something behind the first `cursor` records."""
    taken = cursor if isinstance(cursor, int) else 0
    end = 0
    for number, page in enumerate(pages, 1):
        begin, end = end, end + len(page)
        if end > taken:
            return bases.Page(page[max(0, taken - begin) :], end, number < len(pages))
    return bases.Page([], cursor, False)


class MakeCollectorHarness(Protocol):
    """The type of the fixture `make_collector_harness`."""

    def __call__(
        self, collector_class: type[BaseCollector], config_text: str | None = None
    ) -> CollectorHarness:
        """The harness for `collector_class`, configured by `config_text`."""


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
