"""Runs over a source that grows, killed at system call after system call and at random times, and run again:
nothing is lost, and what came twice bears one id."""

from __future__ import annotations

from pathlib import Path

import pytest

from n6_stateful.message import Exchange, Message
from n6_stateful.output.spool import Spool
from tests.broker.conftest import Broker
from tests.crash.killed import BY, LOAD, Killed, Record, Steps, judge, killed_at_calls, received, spooled

SAVING = pytest.mark.parametrize("saving", ["at the end", "in the middle"])


def every(saving: str, steps: Steps) -> int:
    """So many messages to a save, if it saves in the middle."""
    if saving == "at the end":
        return 0
    return 3 if steps is killed_at_calls else LOAD // 10


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
