"""A pytest plugin for a collector's tests, with one fixture: `make_collector_harness`.

    def test_publishes_what_is_new(make_collector_harness):
        harness = make_collector_harness(MyFeedCollector)
        result = harness.run(Download(b"a record", time_utc="2026-01-01"))
        assert [message.body for message in result.messages] == [b"a record"]
        assert harness.state == {"last_utc": "2026-01-01"}

Everything but the network is real: configuration, journal, state file, exit codes. Instead of a broker a file
gets the messages.
"""

from __future__ import annotations

import io
import itertools
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import pytest

from n6_stateful import bases, settings
from n6_stateful.collector import BaseCollector
from n6_stateful.command import main
from n6_stateful.download import Download
from n6_stateful.errors import NothingNew, PublishError, SourceError
from n6_stateful.journal import Journal, journals_in
from n6_stateful.message import Message
from n6_stateful.state import CollectorWithStateMixin

# The shapes, and the method that gets what the source has.
PLACES: Sequence[tuple[type[BaseCollector], str]] = (
    (bases.BaseSimpleEmailCollector, "raw_email_msg"),
    (bases.BasePagedCollector, "download_page"),
    (bases.BaseTimeOrderedRowsCollector, "obtain_orig_data"),
    (bases.BaseSeenItemsCollector, "obtain_items"),
    (bases.BaseSimpleCollector, "obtain_data_body"),
    (bases.BaseDownloadingListCollector, "obtain_data_body"),
)
# Between two of these calls a run leaves no traces.
COMMIT = (Journal, "commit")
CALLS = (COMMIT, (Journal, "waiting"), (Journal, "delivered"), (os, "rename"), (Journal, "mark_filed"))
CRASHED = 86  # exit code of a process that was made to crash


class RunResult(NamedTuple):
    """What one run of the command did.

    Attributes:
        messages: what was delivered, in order.
        exit_code: the command's.
        text: what it printed on standard output and standard error; empty if it was to crash.
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


@dataclass
class CollectorHarness:
    """Runs one collector class, again and again, over one journal.

    Args:
        collector_class: the collector.
        config_paths: configuration files or directories, as `--config` takes them.
        directory: for the journal, the state file, and what was delivered.
        options: of the collector's section, in place of the configured ones.
    """

    collector_class: type[BaseCollector]
    config_paths: Sequence[Path]
    directory: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> Any:
        """The state that was saved last; None if there is none."""
        for journal in journals_in(self.directory / "cache"):
            states = [journal.pickle(generation.number) for generation in journal.generations()[:1]]
            journal.unlock()
            return pickle.loads(states[0]) if states else None
        return None

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
            source: what the source has, in place of the method that gets it there: for `_download` a
                `Download`, which is handed over if it is newer than what the state knows; for the shapes see
                `n6_stateful.bases`. An exception is raised instead; a function takes the method's place, with
                its arguments; None means nothing new; `...` leaves the method as it is.
            fail_delivery: whether the broker refuses the messages, so that they wait in the outbox.
            crash_before_save: the process dies before it commits for that time, counted from 1; 0 for never.
            argv: the command line.
        """
        if crash_before_save:
            return self._crash(source, crash_before_save, [COMMIT])
        result = self._run(source, argv, **self._to_a_file(fail_delivery))
        return result._replace(messages=list(self._take_delivered()))

    def run_against_rabbitmq(self, url: str, source: Any = None) -> RunResult:
        """Run the collector's command once, publishing to RabbitMQ, and read back what has arrived.

        It publishes to an exchange of its own, which is removed again: n6 sees nothing of it.

        Args:
            url: the broker, `amqp://...` or `amqps://...` (with the system's certificate authorities).
            source: as `run` takes it.
        """
        import pika

        name = f"n6-stateful-test-{os.urandom(8).hex()}"
        parameters = pika.URLParameters(url)
        parameters.heartbeat = 0  # nobody answers during the run
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.exchange_declare(name, "topic", durable=True)
            try:
                channel.queue_declare(name, exclusive=True)
                channel.queue_bind(name, name, "#")
                result = self._run(source, output=url, output_queue={"exchange": name})
                while (got := channel.basic_get(name, auto_ack=True))[0]:
                    properties = {key: value for key, value in vars(got[1]).items() if value is not None}
                    result.messages.append(Message(name, got[0].routing_key, got[2], properties))
            finally:
                channel.exchange_delete(name)
        return result

    def assert_stateful_contract(self, source: Any, later: Any) -> None:
        """Assert what every collector owes, each time from no state on: wherever a run crashes, nothing is
        lost, and copies share a message id; the same data is published once; newer data is published.

        Without a state, as for mails, the same data is published again, with the same ids. A collector of
        rows also owes that with `late_by` each row of `later` counts, once, if it comes after all others,
        older than they are or as old.

        Args:
            source: what the source has at first, as `run` takes it.
            later: what it has later: the same and more, or something else.
        """
        whole, refused = self._beside(), self._beside()
        first = _checked(whole.run(source))
        assert first.messages, f"the collector makes nothing of the sample data: replace it\n{first.text}"
        # 0 for a mail: it is safe in the outbox, so that the mail server need not bring it again.
        assert refused.run(source, fail_delivery=True).exit_code in (0, PublishError.exit_code)
        _assert_same(first, _checked(refused.run(source)).messages)
        for number in itertools.count(1):
            harness = self._beside()
            crashed = harness._crash(source, number, CALLS)
            if not crashed.crashed:
                break
            _assert_same(first, crashed.messages + _checked(harness.run(source)).messages)
        again = _checked(whole.run(source))
        if issubclass(self.collector_class, CollectorWithStateMixin):
            assert not again.messages, "the same data was published twice"
        else:
            _assert_same(first, again.messages)
        newer = _checked(whole.run(later))
        assert newer.messages, "newer data was not published"
        assert not set(newer.message_ids) & set(first.message_ids), "new data has an old message id"
        if issubclass(self.collector_class, bases.BaseTimeOrderedRowsCollector) and isinstance(later, bytes):
            self._assert_late_rows(later)

    def _assert_late_rows(self, later: bytes) -> None:
        rows, any_time = later.split(b"\n"), {"late_by": 36_500 * 86_400}
        published = _rows_in(self._beside(**any_time).run(later))
        data = [row for row in rows if row in published]  # no comments, and nothing that is made of rows
        for late in data[::2], data[1::2]:
            harness = self._beside(**any_time)
            first = harness.run(b"\n".join(row for row in rows if row not in late))
            if "get_window_begin" in first.text:
                return  # its times are of a kind that `late_by` does not know
            assert sorted(_rows_in(harness.run(later))) == sorted(late), "not what came late, and that once"
            assert not harness.run(later).messages, "what came late was published twice"

    def _beside(self, **options: Any) -> CollectorHarness:
        """A harness like this one, with a new journal and these options."""
        return replace(self, directory=Path(mkdtemp(dir=self.directory)), options=options)

    def _to_a_file(self, fail_delivery: bool = False) -> dict[str, Any]:
        """The methods that deliver, replaced."""

        def send(collector: BaseCollector, journal: Journal) -> int:
            waiting = list(journal.waiting())
            if fail_delivery and waiting:
                raise PublishError(f"the broker refused the messages, as the test asked; {len(waiting)} wait")
            for batch in waiting[:1], waiting[1:]:
                with (self.directory / "delivered").open("ab") as file:
                    for row in batch:
                        properties = row.properties | {"message_id": row.message_id}
                        pickle.dump(Message(row.exchange, row.routing_key, row.body, properties), file)
                journal.delivered([row.id for row in batch])
            return len(waiting)

        return {"send": send, "try_output": lambda collector: "a file"}

    def _take_delivered(self) -> Iterator[Message]:
        with suppress(FileNotFoundError, EOFError), (self.directory / "delivered").open("rb") as file:
            Path(file.name).unlink()
            while True:
                yield pickle.load(file)

    def _crash(self, source: Any, number: int, calls: Sequence[tuple[Any, str]]) -> RunResult:
        """Run the command in a child process that ends before the number-th of these calls."""
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # about other threads
            child = os.fork()
        if not child:
            try:
                _crash_at(number, calls)
                self._run(source, **self._to_a_file())
            finally:
                os._exit(0)
        exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return RunResult(list(self._take_delivered()), exit_code, "", exit_code == CRASHED)

    def _run(
        self, source: Any, argv: Sequence[str] = (), output: str = "amqp://a-file/", **members: Any
    ) -> RunResult:
        """Run the command of the collector class with these members in place of its own."""
        original = self.collector_class

        def set_configuration(collector: BaseCollector) -> None:
            original.set_configuration(collector)
            collector.config.update(self.options, cache_dir=self.directory / "cache")
            collector.config_full["journal"].update(url="", url_file="")
            collector.config_full["monitoring"].update(textfile_dir="")

        members |= _stubs(original, source) | {"set_configuration": set_configuration}
        members |= {"__module__": original.__module__, "__qualname__": original.__qualname__}
        wanted = settings.Settings(config_paths=tuple(map(str, self.config_paths)), output=output)
        printed = io.BytesIO()
        text = io.TextIOWrapper(printed, encoding="utf-8", write_through=True)
        with settings.use(wanted), redirect_stdout(text), redirect_stderr(text):
            exit_code = main(type(original.__name__, (original,), members), list(argv))
        return RunResult([], exit_code, printed.getvalue().decode(errors="replace"))


def _checked(result: RunResult) -> RunResult:
    assert result.exit_code == 0, result.text
    return result


def _rows_in(result: RunResult) -> list[bytes]:
    return [row for body in result.bodies for row in body.split(b"\n") if row]


def _assert_same(first: RunResult, messages: Sequence[Message]) -> None:
    """The same as in a run without trouble, some perhaps more than once."""
    arrived = RunResult(list(messages), 0, "")
    assert set(arrived.bodies) == set(first.bodies), "a crash or a failure loses messages, or adds some"
    assert set(arrived.message_ids) == set(first.message_ids), "the same data has another message id"


def _stubs(cls: type[BaseCollector], source: Any) -> dict[str, Any]:
    """The method that gets what the source has, replaced."""
    name = next((name for base, name in PLACES if issubclass(cls, base)), "_download")

    def stub(collector: BaseCollector, *args: Any, **named: Any) -> Any:
        args += tuple(named.values())  # n6's guide gives only_newer_than by its name
        if isinstance(source, BaseException):
            raise source
        if callable(source):
            return source(*args)
        if source is None and name != "_download":
            raise SourceError("there is no mail") if name == "raw_email_msg" else NothingNew
        if name == "download_page":
            return _page(source, *args)
        if isinstance(source, Download) and args and args[0] is not None and source.time_utc <= args[0]:
            return None
        return source

    return {} if source is ... else {name: property(stub) if name == "raw_email_msg" else stub}


def _page(pages: Sequence[Sequence[Any]], cursor: Any) -> bases.Page:
    """The first of `pages` that has something behind the first `cursor` records."""
    taken = cursor if isinstance(cursor, int) else 0
    ends = list(itertools.accumulate(map(len, pages)))
    for page, end in zip(pages, ends, strict=True):
        if end > taken:
            return bases.Page(page[taken - end :], end, end < ends[-1])
    return bases.Page([], cursor, False)


def _crash_at(number: int, calls: Sequence[tuple[Any, str]]) -> None:
    """From now on this process ends before the number-th of these calls."""
    count = itertools.count(1)

    for owner, name in calls:

        def call(*args: Any, original: Any = getattr(owner, name), **kwargs: Any) -> Any:  # noqa: B008
            if next(count) == number:
                os._exit(CRASHED)
            return original(*args, **kwargs)

        setattr(owner, name, call)


MakeCollectorHarness = Callable[..., CollectorHarness]
"""The type of the fixture `make_collector_harness`."""


@pytest.fixture
def make_collector_harness(request: pytest.FixtureRequest, tmp_path: Path) -> MakeCollectorHarness:
    """Makes a `CollectorHarness` for a collector class.

    Its configuration is `config_text`; by default the project's `etc/NN_*.conf`.
    """

    def make(collector_class: type[BaseCollector], config_text: str | None = None) -> CollectorHarness:
        path = request.config.rootpath / "etc"
        if config_text is not None:
            path = tmp_path / "10_test.conf"
            path.write_text(config_text)
        return CollectorHarness(collector_class, [path], tmp_path)

    return make
