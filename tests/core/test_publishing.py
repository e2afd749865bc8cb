"""Collect, commit, deliver: when what was published is durable, when it goes out, and how a run ends."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import (
    BaseCollector,
    CollectorError,
    CollectorWithStateMixin,
    NothingNew,
    PublishError,
    StateError,
)
from n6_stateful.errors import Terminated
from n6_stateful.interruption import signals_raise
from tests.core.counting import CONFIG, CountingCollector, with_records
from tests.core.memory_broker import InForce, MemoryBroker

JOURNAL = "cache/provider.channel.CountingCollector.sqlite"


class Publisher(BaseCollector):
    """Keeps no state."""

    type = "stream"
    config_spec = "[counting]\nsource :: str\ncache_dir :: path"
    output_queue = [{"exchange": "raw"}, {"exchange": "copy", "exchange_type": "fanout"}]

    def __init__(self, publish: Callable[[Any], object] | None = None) -> None:
        super().__init__()
        self.publish = publish or (lambda self: self.publish_output("a.b", b"x"))

    def start_publishing(self) -> None:
        self.publish(self)


def run(collector_class: type[CountingCollector]) -> CountingCollector:
    """Run it as a separate process would."""
    collector = collector_class()
    try:
        collector.run_handling()
    finally:
        collector.close_state()
    return collector


def waiting(path: Path) -> list[bytes]:
    """What waits in a journal."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as connection:
        return [body for (body,) in connection.execute("SELECT body FROM n6_outbox ORDER BY id")]


class TestStateful:
    """A collector with a state."""

    def test_broker_down(self, in_force: InForce, memory: MemoryBroker) -> None:
        """The broker is down for ten runs while the source forgets: everything arrives once, in order, with
        the first run that has a broker; until then each run ends with an error."""
        memory.is_down = True
        with in_force(CONFIG):
            for number in range(10):
                collector = with_records(number + 1)()
                with pytest.raises(PublishError):
                    collector.run_handling()
                collector.close_state()
            memory.is_down = False
            run(with_records(0))
        assert memory.bodies == [b"record %d" % number for number in range(10)]

    def test_save_in_finally(self, in_force: InForce, memory: MemoryBroker) -> None:
        """A collector that saves in a `finally`, whose source breaks off, keeps what it had published."""

        class Saving(CountingCollector):
            def run(self) -> None:
                self.state = self.load_state()
                try:
                    super(CountingCollector, self).run()
                finally:
                    self.save_state(self.state)

            def start_publishing(self) -> None:
                self.state["collected"] = 2
                for body in (b"1", b"2"):
                    self.publish_output("a.b", body)
                raise ConnectionError

        with in_force(CONFIG):
            collector = Saving()
            with pytest.raises(ConnectionError):
                collector.run_handling()
            assert memory.bodies == [b"1", b"2"]
            assert collector.current_state()[0] == {"collected": 2}
            collector.close_state()

    def test_failing(self, in_force: InForce, memory: MemoryBroker) -> None:
        """A run that fails delivers what it has committed, nothing else, and keeps its own error."""

        def fail(collector: CountingCollector) -> None:
            collector.publish_output("a.b", b"saved")
            collector.save_state({"collected": 1})
            collector.publish_output("a.b", b"not saved")
            raise ZeroDivisionError

        with in_force(CONFIG):
            collector = with_records(0, start_publishing=fail)()
            with pytest.raises(ZeroDivisionError):
                collector.run_handling()
            collector.close_state()
            run(with_records(0))
        assert memory.bodies == [b"saved"]

    def test_save_in_the_middle(self, in_force: InForce, memory: MemoryBroker) -> None:
        """A save in the middle delivers if the last attempt was more than `deliver_every` seconds ago."""
        bodies: list[int] = []

        def look(collector: Any, state: Any) -> None:
            CountingCollector.save_state(collector, state)
            bodies.append(len(memory.bodies))

        for seconds, expected in ((60.0, [0, 0, 4]), (0.0, [6, 8, 8])):
            bodies.clear()
            with in_force(CONFIG):
                collector = with_records(len(memory.bodies) + 4, save_every=2, save_state=look)()
                collector.deliver_every = seconds
                collector.run_handling()
                collector.close_state()
            assert bodies == expected

    def test_flush(self, in_force: InForce, memory: MemoryBroker, tmp_path: Path) -> None:
        """`flush_output` commits without a state: a collector may then acknowledge its own input."""

        def publish(collector: CountingCollector) -> None:
            collector.publish_output("a.b", b"flushed")
            collector.flush_output()
            assert waiting(tmp_path / JOURNAL) == [b"flushed"]
            raise ZeroDivisionError

        with in_force(CONFIG):
            collector = with_records(0, start_publishing=publish)()
            with pytest.raises(ZeroDivisionError):
                collector.run_handling()
            assert collector.current_state() == ({"collected": 0}, None)
            collector.close_state()
        assert memory.bodies == [b"flushed"]

    def test_mixin_alone(self, in_force: InForce, tmp_path: Path) -> None:
        """Over a base that does not publish, `save_state` commits, and writes the state file at once."""

        class Base:
            config = {"cache_dir": str(tmp_path / "cache")}

            def get_source_channel(self) -> str:
                return "channel"

            def get_source(self, *, source_channel: str) -> str:
                return f"provider.{source_channel}"

        class Alone(CollectorWithStateMixin, Base):
            pass

        collector = Alone()
        assert collector.load_state() is None
        collector.save_state([1])
        collector.close_state()
        (tmp_path / "cache/provider.channel.Alone.sqlite").unlink()
        assert Alone().load_state() == [1]

    @pytest.mark.parametrize("name", ["run_handling", "save_state"])
    def test_not_loaded(self, name: str, in_force: InForce, memory: MemoryBroker) -> None:
        """Without `load_state` nothing is published or saved."""

        class Careless(CountingCollector):
            def run(self) -> None:
                super(CountingCollector, self).run()

            def start_publishing(self) -> None:
                self.publish_output("a.b", b"x")

        with in_force(CONFIG):
            collector = Careless()
            with pytest.raises(CollectorError, match="load_state"):
                getattr(collector, name)(*([] if name == "run_handling" else [{}]))
            collector.close_state()
        assert not memory.bodies

    def test_not_picklable(self, in_force: InForce, memory: MemoryBroker) -> None:
        """A state that cannot be pickled, or that could not be loaded again, publishes nothing."""
        for state in (lambda: None, Path("/")):

            def run(collector: Any, state: Any = state) -> None:
                collector.state = collector.load_state()
                BaseCollector.run(collector)
                collector.save_state(state)

            with in_force(CONFIG):
                collector = with_records(2, run=run)()
                with pytest.raises(StateError, match="nothing was saved, and nothing was published"):
                    collector.run_handling()
                collector.close_state()
        assert not memory.bodies

    def test_dry_run(self, in_force: InForce, memory: MemoryBroker, tmp_path: Path) -> None:
        """A dry run touches neither the journal nor the state file."""
        with in_force(CONFIG):
            run(with_records(2))
        before = {path: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
        with in_force(CONFIG, dry_run=True):
            collector = with_records(5)()
            collector.run_handling()
        assert collector.published_count == 3
        assert {path: path.read_bytes() for path in (tmp_path / "cache").iterdir()} == before

    def test_outbox_as_destination(
        self, in_force: InForce, memory: MemoryBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With `url = outbox:` messages stay, and the state file follows the commit; the first delivery
        afterwards says how many of them it sends."""
        with in_force(CONFIG, output="outbox:"):
            collector = with_records(2)()
            collector.run_handling()
            collector.close_state()
        (tmp_path / JOURNAL).rename(tmp_path / "kept.sqlite")
        with in_force(CONFIG, output="outbox:"):
            collector = with_records(3)()
            collector.run_handling()
            assert collector.began_with == 2
            collector.close_state()
        with in_force(CONFIG):
            run(with_records(3))
        assert memory.bodies == [b"record 2"]
        assert "collected while `url = outbox:` are sent now: 1" in caplog.text

    def test_another_url(self, in_force: InForce, caplog: pytest.LogCaptureFixture) -> None:
        """Two configurations of one class that share a journal get a warning, without the url's secrets."""
        config = CONFIG + "url = https://me:secret@host/{}\n"
        spec = CountingCollector.config_spec + "url :: str"
        for name in ("first", "first", "second"):
            with in_force(config.format(name, tmp="{tmp}")):
                collector = with_records(1, config_spec=spec)()
                assert "another url" not in caplog.text
                collector.run_handling()
                collector.close_state()
        assert "another url" in caplog.text
        assert "secret" not in caplog.text


class TestStateless:
    """A collector without a state."""

    def test_run(self, in_force: InForce, memory: MemoryBroker) -> None:
        """It commits at the end of `run`, called directly or not; a repeat has another id."""
        with in_force(CONFIG):
            Publisher().run()
            collector = Publisher()
            collector.run_handling()
            collector.run_handling()
        assert memory.bodies == [b"x"] * 3
        assert len(set(memory.ids)) == 3

    def test_nothing_new(self, in_force: InForce, memory: MemoryBroker) -> None:
        """`NothingNew` ends the run with 0, and keeps what was published before."""

        def publish(self: Publisher) -> None:
            self.publish_output("a.b", b"x")
            raise NothingNew

        with in_force(CONFIG):
            Publisher(publish).run_handling()
        assert memory.bodies == [b"x"]

    def test_in_turn(self, in_force: InForce, memory: MemoryBroker, caplog: pytest.LogCaptureFixture) -> None:
        """While another process delivers, a run commits, warns and succeeds; the other looks again."""
        with in_force(CONFIG):
            first, second = Publisher(lambda self: self.publish_output("a.b", b"1")), Publisher()
            original = memory.send

            def send(journal: Any) -> int:
                count = original(journal)
                if not second.published_count:
                    second.run_handling()
                return count

            memory.send = send  # type: ignore[method-assign]
            first.run_handling()
        assert memory.bodies == [b"1", b"x"]
        assert "another process is delivering" in caplog.text

    def test_routing(self, in_force: InForce, memory: MemoryBroker) -> None:
        """The first exchange of `output_queue` is the default; one that it does not name is refused."""

        def publish(self: Publisher) -> None:
            self.publish_output("a.b", b"1")
            self.publish_output("a.b", b"1", exchange="copy")
            with pytest.raises(CollectorError, match="does not name the exchange 'other'"):
                self.publish_output("a.b", b"1", exchange="other")

        with in_force(CONFIG):
            Publisher(publish).run_handling()
        assert [message.exchange for message in memory.delivered] == ["raw", "copy"]
        assert len(set(memory.ids)) == 2

    @pytest.mark.parametrize("where", ["outside", "after inner_stop", "in a thread"])
    def test_not_now(self, where: str, in_force: InForce, memory: MemoryBroker) -> None:
        """Publishing works in `start_publishing` only, before `inner_stop`, and in the thread of the run."""

        def publish(self: Publisher) -> None:
            if where == "in a thread":
                errors: list[BaseException] = []

                def catch() -> None:
                    try:
                        self.publish_output("a.b", b"x")
                    except CollectorError as exc:
                        errors.append(exc)

                thread = threading.Thread(target=catch)
                thread.start()
                thread.join()
                raise errors[0]
            if where == "after inner_stop":
                self.inner_stop()
                self.publish_output("a.b", b"x")

        with in_force(CONFIG):
            collector = Publisher(publish)
            with pytest.raises(CollectorError, match="publish"):
                collector.publish_output("a.b", b"x") if where == "outside" else collector.run_handling()
        assert not memory.bodies


class TestInterrupted:
    """SIGINT and SIGTERM."""

    @pytest.mark.parametrize(
        ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
    )
    def test_swallowed(
        self, number: signal.Signals, raised: type[BaseException], in_force: InForce, memory: MemoryBroker
    ) -> None:
        """After a signal nothing more is committed or delivered, even if the collector swallows it; the next
        run delivers what was committed before."""

        def publish(collector: CountingCollector) -> None:
            collector.publish_output("a.b", b"before")
            collector.save_state({"collected": 1})
            with suppress(KeyboardInterrupt, Terminated):
                os.kill(os.getpid(), number)
            collector.publish_output("a.b", b"after")
            with suppress(KeyboardInterrupt, Terminated):
                collector.save_state({"collected": 2})

        with in_force(CONFIG):
            collector = with_records(0, start_publishing=publish)()
            with signals_raise(), pytest.raises(raised):
                collector.run_handling()
            assert memory.bodies == []
            assert collector.current_state()[0] == {"collected": 1}
            collector.close_state()
            run(with_records(0))
        assert memory.bodies == [b"before"]


class TestLimits:
    """A full disk, a full outbox."""

    def test_full_outbox(self, in_force: InForce, memory: MemoryBroker) -> None:
        """Beyond `outbox_max_mib` a run ends with 69 and commits nothing more; the next one asks again."""
        big = [bytes(400_000)] * 4
        with in_force(CONFIG + "[journal]\noutbox_max_mib = 1"):
            collector = with_records(0, records=big)()
            with pytest.raises(PublishError, match=r"outbox_max_mib.*nothing since the last save"):
                collector.run_handling()
            collector.close_state()
            assert memory.bodies == []
            collector = with_records(0, records=big, save_every=1)()
            collector.deliver_every = 0
            collector.run_handling()
            collector.close_state()
        assert memory.bodies == big

    def test_full_disk(self, in_force: InForce, memory: MemoryBroker, tmp_path: Path) -> None:
        """On a full disk a run ends with 74, nothing saved or published; with free space it goes on."""
        with in_force(CONFIG):
            run(with_records(1))
            big = [b"record 0", *(b"%d" % number + bytes(100_000) for number in range(30))]
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            collector = with_records(0, records=big)()
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
                with pytest.raises(StateError, match="nothing was saved or published"):
                    collector.run_handling()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            collector.close_state()
            assert memory.bodies == [b"record 0"]
            run(with_records(0, records=big))
        assert memory.bodies == big


def test_error_is_logged_once(
    in_force: InForce, memory: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """A delivery that fails is the error at the end of the run, and no warning before it."""
    memory.is_down = True
    caplog.set_level(logging.WARNING)
    with in_force(CONFIG):
        for count in (1, 2):
            collector = with_records(count)()
            with pytest.raises(PublishError):
                collector.run_handling()
            collector.close_state()
    assert "is down" not in caplog.text
