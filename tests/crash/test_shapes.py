"""Runs of each base class, killed and run again: nothing is lost, and what came twice bears one id."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from n6_stateful.output.spool import Spool
from tests.broker.conftest import Broker
from tests.crash import shape_collectors
from tests.crash.killed import BY, Killed, Record, Steps, received, spooled
from tests.crash.strace import need_strace


def judge(shape: str, killed: Killed, arrived: list[Record], report: pytest.CaptureFixture[str]) -> int:
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


@pytest.mark.parametrize("shape", shape_collectors.STATEFUL)
@BY
@pytest.mark.slow
class TestKilled:
    """Runs of the base classes that are killed."""

    def test_spool(
        self, shape: str, steps: Steps, tmp_path: Path, spool: Spool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """They leave each row, item or record once in the spool."""
        killed = Killed(tmp_path / "host", f"spool:{spool.path}", "raw", shape=shape)
        for _ in steps(killed):
            pass
        assert judge(shape, killed, spooled(spool), capsys) == 0

    def test_broker(
        self, shape: str, steps: Steps, tmp_path: Path, broker: Broker, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """They lose nothing on their way to the broker, and twins bear one id, though the source grows."""
        broker.bind()
        killed = Killed(tmp_path / "host", broker.url, broker.exchange, shape=shape)
        for _ in steps(killed):
            pass
        judge(shape, killed, received(broker), capsys)


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
