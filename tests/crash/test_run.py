"""Runs over a source that grows, killed at system call after system call and at random times, and run again:
nothing is lost, and what came twice bears one id."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from n6_stateful.message import Exchange, Message
from n6_stateful.output.forwarding import forward
from n6_stateful.output.spool import Spool
from n6_stateful.testing import MemoryOutput
from tests.broker.conftest import Broker
from tests.broker.conftest import broker as broker  # the fixture
from tests.crash import growing_collector, shape_collectors
from tests.crash.strace import Call, calls, need_strace, run

PROGRAM = str(growing_collector.__file__)
SHAPES = str(shape_collectors.__file__)
# At each system call; for less time, N6_STATEFUL_KILLS=20 takes so many, evenly chosen.
KILLS_BY_CALL = int(os.environ.get("N6_STATEFUL_KILLS", "1000"))
KILLS_BY_TIME = 10
LOAD = 1_000
Steps = Callable[..., Iterator[None]]
SAVING = pytest.mark.parametrize("saving", ["at the end", "in the middle"])


class Record(NamedTuple):
    """What a consumer sees of a message."""

    message_id: str
    body: bytes


class Killed:
    """One collector with its source, whose runs are killed.

    Args:
        directory: where everything is.
        output: a URL.
        exchange: what it publishes to.
        save_every: so many messages.
        shape: instead of the growing collector, one of `shape_collectors`.
    """

    def __init__(
        self, directory: Path, output: str, exchange: str, save_every: int = 0, shape: str = ""
    ) -> None:
        directory.mkdir()
        self._shape = shape
        self._program = [SHAPES, shape] if shape else [PROGRAM]
        self.lines: list[bytes] = []
        self.kills = 0
        self.survived = 0
        self.good_codes: tuple[int, ...] = (0,)
        self._feed = directory / "feed"
        self._directory = directory
        self._config = directory / "60_growing.conf"
        self._config.write_text(
            f"[growing]\nsource = provider\ncache_dir = {directory}/cache\nurl = {directory}/feed\n"
            f"exchange = {exchange}\nsave_every = {save_every}\n"
            f"{'late_by = 1m' if 'row' in shape else ''}\n[output]\nurl = {output}\n"
        )

    def argv(self, *command: str) -> list[str]:
        return [*self._program, *command, "--config", str(self._config), "--log-level", "warning"]

    def grow(self, count: int = 7, *, and_run: bool = False) -> None:
        begin = len(self.lines)
        self.lines += [self._line(number) for number in range(begin, begin + count)]
        self._feed.write_bytes(b"\n".join(self.lines))
        if and_run:
            self.run()

    def _line(self, number: int) -> bytes:
        if self._shape:
            # Each third comes late.
            row_time = datetime(2026, 1, 1) + timedelta(seconds=number - 30 * (number % 3 == 2))
            return b"%s,record %d" % (str(row_time).encode(), number)
        # Each third is there again and again, as in a real source: that is no duplicate.
        return b"again" if number % 3 == 2 else b"record %d" % number

    def run(self, *command: str) -> None:
        done = subprocess.run([sys.executable, *self.argv(*command)], capture_output=True, text=True)
        assert done.returncode in self.good_codes, done.stderr

    def calls(self, *command: str) -> list[Call]:
        """The system calls of a run that is not killed, from the first that concerns its files on."""
        log = self._directory / "log"
        done = run(*self.argv(*command), log=log)
        assert done.returncode in self.good_codes, done.stderr
        every = calls(log)
        begin = next(at for at, call in enumerate(every) if str(self._directory) in call.arguments)
        relevant = [call for call in every[begin:] if changes_something(call)]
        count = min(KILLS_BY_CALL, len(relevant))
        return [relevant[len(relevant) * at // count] for at in range(count)]

    def kill_at(self, call: Call, *command: str) -> None:
        done = run(*self.argv(*command), inject=f"{call.name}:signal=KILL:when={call.number}")
        self._count(done.returncode, done.stderr)

    def kill_after(self, seconds: float, *command: str) -> bool:
        process = subprocess.Popen(
            [sys.executable, *self.argv(*command)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(seconds)  # the time is what is tried here
        process.kill()
        _, told = process.communicate(timeout=60)
        self._count(process.returncode, told)
        return process.returncode == -9

    def _count(self, code: int, told: str) -> None:
        if code in (-9, 137):
            self.kills += 1
        else:
            # It made fewer such calls than the run that was looked at, or had ended before its time.
            assert code in self.good_codes, told
            self.survived += 1


def changes_something(call: Call) -> bool:
    """Not the mere reading of files, such as Python's modules."""
    if call.name == "openat":
        return "O_RDONLY" not in call.arguments or "O_DIRECTORY" in call.arguments
    return call.name != "close"


def seconds_of_a_run(killed: Killed, *command: str) -> float:
    begin = time.monotonic()
    killed.run(*command)
    return time.monotonic() - begin


def received(broker: Broker) -> list[Record]:
    return [Record(message.properties["message_id"], message.body) for message in broker.receive()]


def spooled(spool: Spool) -> list[Record]:
    """What is in the spool, which stays as it is."""
    if not spool.path.exists():
        return []
    copy = Spool(spool.path.with_name("copy"))
    shutil.copy(spool.path, copy.path)
    output = MemoryOutput()
    forward(copy, output)
    return [Record(each.properties["message_id"], each.body) for each in output.delivered]


def judge(killed: Killed, arrived: list[Record], report: pytest.CaptureFixture[str]) -> int:
    """Nothing is lost, and a consumer that drops by id has each record once, in order.

    Returns:
        How many came more than once.
    """
    records = {each.message_id: each.body for each in arrived}
    lost = (Counter(killed.lines) - Counter(records.values())).total()
    with_another_id = len(set(arrived)) - len(killed.lines)
    duplicates = len(arrived) - len(set(arrived))
    with report.disabled():
        print(
            f"\n{killed.kills} kills ({killed.survived} runs ended before theirs), "
            f"{len(killed.lines)} records: {lost} lost, {duplicates} came twice, "
            f"{with_another_id} of them with another id"
        )
    assert not lost
    assert not with_another_id
    assert list(records.values()) == killed.lines
    return duplicates


def judge_shape(shape: str, killed: Killed, arrived: list[Record], report: pytest.CaptureFixture[str]) -> int:
    """Nothing is lost, and a consumer that drops by id has each record once; of lists that replace one
    another it has the last one.

    Returns:
        How many messages came more than once.
    """
    bodies = {each.message_id: each.body for each in arrived}
    duplicates = len(arrived) - len(bodies)
    with report.disabled():
        print(
            f"\n{shape}: {killed.kills} kills ({killed.survived} runs ended before theirs), "
            f"{len(killed.lines)} records in {len(bodies)} messages, {duplicates} came twice"
        )
    assert len(set(arrived)) == len(bodies)
    if shape == "list":
        assert len(set(bodies.values())) == len(bodies)
        assert arrived[-1].body == b"\n".join(killed.lines)
    else:
        lines = [line for body in bodies.values() for line in body.split(b"\n")]
        assert Counter(lines) == Counter(killed.lines)
    return duplicates


def every(saving: str, steps: Steps) -> int:
    """So many messages to a save, if it saves in the middle."""
    if saving == "at the end":
        return 0
    return 3 if steps is killed_at_calls else LOAD // 10


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def killed_at_calls(killed: Killed, *command: str) -> Iterator[None]:
    """Each step is a run, or a `command` after a run, killed at one system call."""
    need_strace()
    killed.grow()
    killed.run()
    killed.grow(7, and_run=bool(command))
    for call in killed.calls(*command):
        killed.grow(7, and_run=bool(command))
        killed.kill_at(call, *command)
        yield
    assert killed.kills > killed.survived
    killed.run(*command)


def killed_at_times(killed: Killed, *command: str) -> Iterator[None]:
    """Each step is a run under load, or a `command` after one, killed at a random time."""
    chance = random.Random(4)
    killed.grow(LOAD)
    killed.run()
    killed.grow(LOAD, and_run=bool(command))
    longest = seconds_of_a_run(killed, *command)
    while killed.kills < KILLS_BY_TIME:
        killed.grow(LOAD, and_run=bool(command))
        # Python alone needs the first part to begin.
        if not killed.kill_after(chance.uniform(0.4, 1.0) * longest, *command):
            longest *= 0.9
        yield
    killed.run(*command)


BY = pytest.mark.parametrize(
    "steps",
    [
        pytest.param(killed_at_calls, id="at system calls"),
        pytest.param(killed_at_times, id="at random times"),
    ],
)


@SAVING
@BY
@pytest.mark.slow
class TestRuns:
    """Runs that are killed."""

    def test_spool(
        self, steps: Steps, saving: str, tmp_path: Path, spool: Spool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """They leave each record once in the spool."""
        killed = Killed(tmp_path / "host", f"spool:{spool.path}", "raw", every(saving, steps))
        for _ in steps(killed):
            pass
        assert judge(killed, spooled(spool), capsys) == 0

    def test_broker(
        self, steps: Steps, saving: str, tmp_path: Path, broker: Broker, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """They lose nothing on their way to the broker, and twins bear one id."""
        broker.bind()
        killed = Killed(tmp_path / "host", broker.url, broker.exchange, every(saving, steps))
        for _ in steps(killed):
            pass
        judge(killed, received(broker), capsys)

    def test_forward_after_each(
        self,
        steps: Steps,
        saving: str,
        tmp_path: Path,
        spool: Spool,
        broker: Broker,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """With a forward after each they leave each record once at the broker."""
        broker.bind()
        killed = Killed(tmp_path / "host", f"spool:{spool.path}", broker.exchange, every(saving, steps))
        to_broker = ("spool", "forward", "--to", broker.url)
        for _ in steps(killed):
            killed.run(*to_broker)
        killed.run(*to_broker)
        assert judge(killed, received(broker), capsys) == 0


@pytest.mark.parametrize("shape", shape_collectors.STATEFUL)
@BY
@pytest.mark.slow
class TestShapes:
    """Runs of the base classes that are killed."""

    def test_spool(
        self, shape: str, steps: Steps, tmp_path: Path, spool: Spool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """They leave each row, item or record once in the spool."""
        killed = Killed(tmp_path / "host", f"spool:{spool.path}", "raw", shape=shape)
        for _ in steps(killed):
            pass
        assert judge_shape(shape, killed, spooled(spool), capsys) == 0

    def test_broker(
        self, shape: str, steps: Steps, tmp_path: Path, broker: Broker, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """They lose nothing on their way to the broker, and twins bear one id, though the source grows."""
        broker.bind()
        killed = Killed(tmp_path / "host", broker.url, broker.exchange, shape=shape)
        for _ in steps(killed):
            pass
        judge_shape(shape, killed, received(broker), capsys)


@pytest.mark.slow
def test_mail(tmp_path: Path, broker: Broker) -> None:
    """A mail that is delivered again after a kill, as postfix does it, is not lost, and twins bear one id."""
    need_strace()
    broker.bind()
    killed = Killed(tmp_path / "host", broker.url, broker.exchange, shape="email")
    killed.grow(1, and_run=True)
    mails = [b"\n".join(killed.lines)]
    for call in killed.calls():
        killed.grow(1)
        killed.kill_at(call)
        killed.run()
        mails.append(b"\n".join(killed.lines))
    assert killed.kills > killed.survived
    arrived = received(broker)
    assert list({each.message_id: each.body for each in arrived}.values()) == mails


@BY
@pytest.mark.slow
class TestForwards:
    """Forwards that are killed."""

    def test_all(
        self, steps: Steps, tmp_path: Path, spool: Spool, broker: Broker, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """They lose nothing, and twins bear one id."""
        broker.bind()
        killed = Killed(tmp_path / "host", f"spool:{spool.path}", broker.exchange, 0)
        for _ in steps(killed, "spool", "forward", "--to", broker.url):
            pass
        judge(killed, received(broker), capsys)
        assert spooled(spool) == []

    def test_refused(
        self, steps: Steps, tmp_path: Path, spool: Spool, broker: Broker, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The same where the broker closes the channel on a message of each, which stays, and is told."""
        broker.bind()
        refused: list[Record] = []

        def spool_one_to_refuse() -> None:
            refused.append(Record(f"{len(refused):032x}", b"refused"))
            properties = {"message_id": refused[-1].message_id, "user_id": "somebody-else"}
            spool.open([Exchange(broker.exchange, "topic")], "another", ("g",))
            spool.publish(Message(broker.exchange, "a.b", b"refused", properties, "g"))
            spool.close()

        spool_one_to_refuse()
        killed = Killed(tmp_path / "host", f"spool:{spool.path}", broker.exchange, 0)
        killed.good_codes = (0, 69)
        for _ in steps(killed, "spool", "forward", "--to", broker.url):
            spool_one_to_refuse()
        judge(killed, received(broker), capsys)
        assert spooled(spool) == refused
        assert all("406 PRECONDITION_FAILED" in str(each.refused) for each in spool.messages())
