"""The state file: whether it or the journal counts, and that it is never ahead of the broker."""

from __future__ import annotations

import logging
import os
import pickle
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from n6_stateful import BaseCollector, StateError, StateLockedError
from n6_stateful.errors import PublishError
from n6_stateful.journal import Journal
from n6_stateful.state_file import StateFile
from tests.core.counting import CONFIG, CountingCollector, with_records
from tests.core.memory_broker import MemoryBroker

NAME = "provider.channel.CountingCollector"


class Killed(BaseException):
    """Ends a run as a kill would: nothing catches it."""


class Peek(NamedTuple):
    id: str
    newest: int
    filed: int
    collected: int | None


class Host:
    """A machine with one collector, whose source grows and whose broker may be down."""

    def __init__(self, directory: Path) -> None:
        self.cache = directory / "cache"
        self.path = self.cache / f"{NAME}.pickle"
        self.journal = self.cache / f"{NAME}.sqlite"
        self.records = 0
        self.broker = MemoryBroker()
        self.options = ""
        self._config = directory / "60_counting.conf"

    def collector(self, **attributes: Any) -> CountingCollector:
        return with_records(self.records, **attributes)()

    def in_place(self) -> Any:
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        self._config.write_text(CONFIG.replace("{tmp}", str(self.cache.parent)) + self.options)
        return self.broker.in_place(self._config)

    def run(self, **attributes: Any) -> int:
        """Run it once; how many records it began with."""
        with self.in_place():
            collector = self.collector(**attributes)
            try:
                collector.run_handling()
            except (PublishError, Killed):
                pass
            finally:
                collector.close_state()
        return int(getattr(collector, "began_with", -1))

    def command(self, change: Callable[[CountingCollector], Any]) -> Any:
        with self.in_place():
            collector = self.collector()
            try:
                collector.open_journal()
                return change(collector)
            finally:
                collector.close_state()

    def file(self) -> StateFile:
        return StateFile.parse(self.path.read_bytes()) if self.path.exists() else StateFile(None)

    def peek(self) -> Peek:
        """What the journal says."""
        if not self.journal.exists():
            return Peek("", 0, 0, None)
        with closing(sqlite3.connect(self.journal)) as connection:
            head = connection.execute("SELECT id, newest, filed FROM n6_collector").fetchone()
            row = connection.execute("SELECT pickle FROM n6_state ORDER BY number DESC").fetchone()
        id, newest, filed = head or ("", 0, 0)
        return Peek(id, newest, filed, pickle.loads(row[0])["collected"] if row else None)

    def put(self, collected: int) -> None:
        """Put a plain pickle, as n6 saves it, in the place of the state file."""
        self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.write_bytes(pickle.dumps({"collected": collected}))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.records = 3
    return host


class TestTable:
    """Each row of the design's table."""

    def test_nothing(self, host: Host, caplog: pytest.LogCaptureFixture) -> None:
        """Without journal and file a run begins with the default state, with a warning."""
        assert host.run() == 0
        assert "beginning with the default state" in caplog.text

    def test_file_of_n6(self, host: Host, caplog: pytest.LogCaptureFixture) -> None:
        """Without a journal the file is imported, and gets our line; n6 can still load it."""
        caplog.set_level(logging.INFO)
        host.put(2)
        assert host.run() == 2
        assert host.broker.bodies == [b"record 2"]
        assert host.file().id
        assert pickle.loads(host.path.read_bytes()) == {"collected": 3}
        assert "imported the state file" in caplog.text

    def test_journal_gone(self, host: Host) -> None:
        """Without a journal our own file is imported, its number is continued, and ids are as before."""
        host.run()
        number = host.file().number
        host.records = 5
        host.run(save_every=0)
        first, backup = host.broker.ids[-2:], host.file()
        host.journal.unlink()
        host.path.write_bytes(StateFile(pickle.dumps({"collected": 3}, 5), id="x", number=number).to_bytes())
        assert host.run() == 3
        assert host.broker.ids[-2:] == first
        assert host.file().number == backup.number

    def test_own_file(self, host: Host) -> None:
        """Of a journal and its own file, the journal counts: the file may be behind."""
        host.run()
        host.broker.is_down = True
        host.records = 5
        host.run()
        assert pickle.loads(host.path.read_bytes()) == {"collected": 3}
        assert host.run() == 5
        host.broker.is_down = False
        assert host.run() == 5
        assert host.broker.bodies == [b"record %d" % number for number in range(5)]
        assert pickle.loads(host.path.read_bytes()) == {"collected": 5}

    @pytest.mark.parametrize("damage", [None, b"", b"garbage", b"garbage."])
    def test_own_file_gone(self, damage: bytes | None, host: Host, caplog: pytest.LogCaptureFixture) -> None:
        """Of a journal and no file, or a damaged one, the journal counts, and the file is written again."""
        host.run()
        host.path.unlink() if damage is None else host.path.write_bytes(damage)
        assert host.run() == 3
        assert pickle.loads(host.path.read_bytes()) == {"collected": 3}
        assert ("is damaged" in caplog.text) == (damage is not None)

    def test_file_of_n6_beside_journal(self, host: Host, caplog: pytest.LogCaptureFixture) -> None:
        """A state file of n6 next to a journal is imported, with a warning, before the source is asked."""
        host.run()
        host.put(1)
        assert host.run() == 1
        assert [record.levelname for record in caplog.records if "imported" in record.message] == ["WARNING"]
        assert host.run() == 3

    def test_imported_before_source(self, host: Host) -> None:
        """An imported state is safe in the journal even if the run dies at the source."""
        host.run()
        host.put(1)

        def die(collector: Any) -> None:
            raise Killed

        host.run(start_publishing=die)
        host.path.unlink()
        assert host.run() == 1

    def test_other_host(self, host: Host, tmp_path: Path) -> None:
        """A file of another host's journal is imported."""
        host.run()
        other = Host(tmp_path / "other")
        other.records = 2
        other.run()
        host.path.write_bytes(other.path.read_bytes())
        assert host.run() == 2

    def test_older_file(self, host: Host) -> None:
        """An older file that an operator puts back is imported."""
        host.run()
        backup = host.path.read_bytes()
        host.records = 5
        host.run()
        host.path.write_bytes(backup)
        assert host.run() == 3

    def test_damaged_file(self, host: Host, caplog: pytest.LogCaptureFixture) -> None:
        """A damaged file alone is an error in the log, and the default state; or 74, as configured."""
        host.put(2)
        host.path.write_bytes(host.path.read_bytes()[:-3])
        host.options = "broken_state = fail"
        with pytest.raises(StateError, match=r"no intact state is left, and nothing was changed"):
            host.run()
        host.options = ""
        assert host.run() == 0
        assert "ERROR" in [record.levelname for record in caplog.records]

    def test_class_not_allowed(self, host: Host) -> None:
        """A file that names a class that is not allowed ends the run, and nothing is changed."""
        host.run()
        data = pickle.dumps(Path("/"))
        host.path.write_bytes(data)
        with pytest.raises(StateError, match=r"the class pathlib\S* is not allowed.*nothing was changed"):
            host.run()
        assert host.path.read_bytes() == data
        assert host.broker.bodies == [b"record 0", b"record 1", b"record 2"]

    @pytest.mark.parametrize("file", ["good", "gone"])
    def test_corrupt_journal(self, file: str, host: Host, caplog: pytest.LogCaptureFixture) -> None:
        """A corrupt journal is moved aside, and the file is the start, in the same run."""
        host.run()
        host.journal.write_bytes(b"x" * 5_000)
        if file == "gone":
            host.path.unlink()
        assert host.run() == (3 if file == "good" else 0)
        assert "moved to" in caplog.text
        assert len(list(host.cache.glob("*.sqlite*"))) == 2


class TestDamage:
    """Effects of damage."""

    def test_every_bit(self, host: Host) -> None:
        """A flipped bit or a cut anywhere in a state file never yields another state."""
        host.run()
        data = host.path.read_bytes()
        length = len(host.file().pickle or b"")
        damaged = [
            data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            for at in range(len(data))
            for bit in range(8)
        ]
        damaged += [data[:at] for at in range(len(data)) if at != length]
        with host.in_place():
            collector = host.collector()
        for contents in damaged:
            with pytest.raises(StateError):
                collector.read_file(contents, "the file")

    def test_generation(self, host: Host, caplog: pytest.LogCaptureFixture) -> None:
        """A damaged generation is skipped with an error, and the one before it is used."""
        host.run()
        host.records = 5
        host.run()
        damage(
            host.journal,
            "UPDATE n6_state SET pickle = x'00' WHERE number = (SELECT max(number) FROM n6_state)",
        )
        assert host.run() == 3
        assert "the state before it is used" in caplog.text

    def test_every_generation(self, host: Host) -> None:
        """If no generation is intact, the state file is the start."""
        host.run()
        damage(host.journal, "UPDATE n6_state SET pickle = x'00'")
        assert host.run() == 3
        assert host.broker.bodies == [b"record 0", b"record 1", b"record 2"]


def damage(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


class TestGenerations:
    """What `state restore` can go back to."""

    def test_one_per_run(self, host: Host) -> None:
        """However often a run saves, it leaves one generation; a run with nothing new leaves none."""
        for count in (4, 8, 8, 12):
            host.records = count
            host.run(save_every=2)
        with host.in_place():
            collector = host.collector()
            collector.journal.open()
            numbers = [generation.number for generation in collector.journal.generations()]
            assert [collector.read_generation(number)["collected"] for number in numbers] == [12, 8, 4]
            collector.close_state()

    def test_saved_nothing(self, host: Host) -> None:
        """A run that publishes and never saves leaves the state under another number, so that the next run's
        messages have other ids."""

        def run(collector: Any) -> None:
            collector.state = collector.load_state()
            BaseCollector.run(collector)

        host.run(run=run)
        host.run(run=run)
        assert len(set(host.broker.ids)) == 6


def test_second_run(host: Host) -> None:
    """A second run ends at once, names the first, and leaves everything as it is."""
    with host.in_place():
        first, second = host.collector(), host.collector()
        first.load_state()
        with pytest.raises(StateLockedError, match=str(os.getpid())):
            second.run_handling()
        first.close_state()


class History:
    """Random events on a host, in this order."""

    STEPS = ["run"] * 5 + ["kill"] * 5
    STEPS += ["put_file_of_n6", "put_back", "lose_file", "damage_file", "lose_journal", "reset"]

    def __init__(self, host: Host, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host, self.random, self.monkeypatch = host, random.Random(seed), monkeypatch
        self.vouched = 0  # how many records another program claims to have collected
        self.backup: bytes | None = None
        self.log: list[str] = []

    def expected(self) -> int:
        """What a run must begin with, by the rule in the design."""
        file, journal = self.host.file(), self.host.peek()
        if file.pickle is None:
            return journal.collected or 0
        if (
            journal.collected is not None
            and file.id == journal.id
            and journal.filed <= file.number <= journal.newest
        ):
            return journal.collected
        return int(pickle.loads(file.pickle)["collected"])

    def step(self) -> None:
        name = self.random.choice(self.STEPS)
        self.log.append(name)
        self.host.records += self.random.randrange(3)
        self.host.broker.is_down = self.random.random() < 0.3
        getattr(self, name)()
        file = self.host.file()
        if file.pickle is not None:
            number = pickle.loads(file.pickle)["collected"]
            confirmed = {b"record %d" % at for at in range(self.vouched)} | set(self.host.broker.bodies)
            assert {b"record %d" % at for at in range(number)} <= confirmed, self.log

    def run(self, **attributes: Any) -> None:
        expected = self.expected()
        began = self.host.run(save_every=self.random.choice([0, 2]), **attributes)
        self.log.append(f"began with {began}, expected {expected}")
        assert began in (expected, -1), self.log

    def kill(self) -> None:
        owner, name = self.random.choice(
            [(Journal, "commit"), (Journal, "delivered"), (Journal, "mark_filed"), (os, "rename")]
        )
        after, countdown = self.random.random() < 0.5, self.random.randrange(3)
        original: Any = getattr(owner, name)

        def kill(*args: Any, **kwargs: Any) -> Any:
            nonlocal countdown
            countdown -= 1
            if countdown < 0 and not after:
                raise Killed
            result = original(*args, **kwargs)
            if countdown < 0:
                raise Killed
            return result

        self.log.append(f"{'after' if after else 'before'} {name} {countdown}")
        with self.monkeypatch.context() as patch:
            patch.setattr(owner, name, kill)
            self.run()

    def put_file_of_n6(self) -> None:
        self.vouched = max(self.vouched, self.random.randrange(self.host.records + 1))
        self.host.put(self.vouched)

    def put_back(self) -> None:
        if self.backup:
            self.host.path.write_bytes(self.backup)
        self.backup = self.host.path.read_bytes() if self.host.path.exists() else None

    def lose_file(self) -> None:
        self.host.path.unlink(missing_ok=True)

    def damage_file(self) -> None:
        if self.host.path.exists():
            self.host.path.write_bytes(self.host.path.read_bytes()[:-5])

    def lose_journal(self) -> None:
        self.host.journal.unlink(missing_ok=True)

    def reset(self) -> None:
        self.host.command(lambda collector: collector.save_as_new({"collected": 0}))


@pytest.mark.parametrize(
    "seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(10, 150))]
)
def test_histories(seed: int, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any events in any order, each run begins with the state that the rule demands, the file is never
    ahead of the broker, and in the end every record has arrived that no other program claimed."""
    history = History(host, seed, monkeypatch)
    for _ in range(25):
        history.step()
    host.broker.is_down = False
    host.run()
    missing = {b"record %d" % at for at in range(history.vouched, host.records)} - set(host.broker.bodies)
    assert not missing, history.log
    copies: dict[str, bytes] = {}
    for message in host.broker.delivered:
        assert copies.setdefault(message.properties["message_id"], message.body) == message.body
