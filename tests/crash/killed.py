"""Collectors whose runs are killed, over a source that grows, and the judgement over what has arrived."""

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

from n6_stateful.output.forwarding import forward
from n6_stateful.output.spool import Spool
from n6_stateful.testing import MemoryOutput
from tests.broker.conftest import Broker
from tests.crash import growing_collector, shape_collectors
from tests.crash.strace import Call, calls, need_strace, run

PROGRAM = str(growing_collector.__file__)
SHAPES = str(shape_collectors.__file__)
# At each system call; for less time, N6_STATEFUL_KILLS=20 takes so many, evenly chosen.
KILLS_BY_CALL = int(os.environ.get("N6_STATEFUL_KILLS", "1000"))
KILLS_BY_TIME = 10
LOAD = 1_000
Steps = Callable[..., Iterator[None]]


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
