"""A spool forwarded: in order, nothing twice, and nothing held up by what the broker refuses."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from n6_stateful import PublishError
from n6_stateful.config import ConfigFiles
from n6_stateful.errors import BusyError, ExchangeError
from n6_stateful.message import Exchange, Message, Undelivered
from n6_stateful.output import forwarding
from n6_stateful.output import spool as spool_module
from n6_stateful.output.choice import find_spool
from n6_stateful.output.forwarding import forward
from n6_stateful.output.spool import Spool
from n6_stateful.output.spool_first import SpoolFirstOutput
from n6_stateful.testing import MemoryOutput
from tests.runtime.test_spool import EXCHANGES, ids, message, need_root, put
from tests.runtime.test_spool import spool as spool  # the fixture


class PickyBroker(MemoryOutput):
    """Refuses some messages, as RabbitMQ does.

    Args:
        returns: the numbers of those that it returns: it says which they are.
        closes: the numbers of those on which it closes the channel: when more than one was in flight, it does
            not say which.
        exchanges: those that it does not let anybody have.
        forbids: the routing keys for which it closes the channel, whatever the message.
        good: after so many messages the connection is lost.
    """

    def __init__(
        self,
        returns: Sequence[int] = (),
        closes: Sequence[int] = (),
        exchanges: Sequence[str] = (),
        forbids: Sequence[str] = (),
        good: int = 1_000_000,
    ) -> None:
        super().__init__()
        self.returns = returns
        self.closes = closes
        self.exchanges = exchanges
        self.forbids = forbids
        self.good = good
        self.opened = 0

    def open(self, exchanges: Sequence[Exchange], owner: str, generations: Sequence[str]) -> None:
        self.opened += 1
        if self.good <= 0:
            raise PublishError("the broker is gone", consequence="the state stays as it was")
        self.check(exchanges)
        super().open(exchanges, owner, generations)

    def check(self, exchanges: Sequence[Exchange]) -> None:
        if refused := [each.name for each in exchanges if each.name in self.exchanges]:
            raise ExchangeError(f"no exchange {refused[0]}")

    def flush(self) -> None:
        pending, self._pending = self._pending, []
        undelivered: list[Undelivered] = []
        for each in pending:
            number = int(each.properties["message_id"], 16)
            self.good -= 1
            if undelivered and undelivered[-1].reason != "returned":
                undelivered.append(about(each, "not confirmed", undelivered[-1].refused))
            elif self.good < 0:
                undelivered.append(about(each, "not confirmed", False))
            elif number in self.returns:
                undelivered.append(about(each, "returned", True))
            elif number in self.closes:
                undelivered.append(about(each, "channel closed", True if len(pending) == 1 else None))
            elif each.routing_key in self.forbids:
                alone = len(pending) == 1
                undelivered.append(about(each, "no right", alone or None)._replace(for_all=alone))
            else:
                self.delivered.append(each)
        if undelivered:
            raise PublishError("not everything was taken", undelivered)


def about(message: Message, reason: str, refused: bool | None) -> Undelivered:
    """A note of a message that did not arrive."""
    return Undelivered(
        message.routing_key, message.properties["message_id"], len(message.body), reason, refused
    )


def numbers(output: MemoryOutput) -> list[int]:
    """Those of the messages that arrived, in their order, each as often as it did."""
    return [int(each.properties["message_id"], 16) for each in output.delivered]


def apart(spool: Spool) -> dict[int, str]:
    """The messages that are set apart, and why."""
    return {int(each.message_id, 16): each.refused for each in spool.messages() if each.refused is not None}


class TestForward:
    """A broker that takes everything, or is lost."""

    def test_all(self, spool: Spool) -> None:
        """Order, ids and properties are kept, and the spool is empty afterwards."""
        messages = [message(number) for number in (3, 1, 2)]
        put(spool, *messages)
        output = PickyBroker()
        assert forward(spool, output) == 3
        assert output.delivered == messages
        assert ids(spool) == []
        assert forward(spool, output) == 0
        assert output.opened == 1

    def test_memory(self, tmp_path: Path) -> None:
        """Large messages are in memory a few at a time."""
        code = f"""
import resource
from tests.runtime.test_forwarding import EXCHANGES, Path, PickyBroker, Spool, forward, message
class Forgetful(PickyBroker):
    def flush(self): self._pending.clear()
spool = Spool(Path({str(tmp_path / "spool")!r}))
spool.open(EXCHANGES, "owner", ("g1",))
for number in range(60): spool.publish(message(number, body=bytes(4 << 20)))
spool.close()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert forward(spool, Forgetful()) == 60
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        assert float(done.stdout) < 40, done.stderr

    def test_no_file(self, tmp_path: Path) -> None:
        """Before any run there is nothing to send, and no file is made."""
        assert forward(Spool(tmp_path / "none" / "spool"), MemoryOutput()) == 0
        assert not list(tmp_path.iterdir())

    def test_lost(self, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        """A forward that breaks off is taken up where it was, and sets nothing apart."""
        monkeypatch.setattr(forwarding, "MESSAGES_AT_ONCE", 2)
        put(spool, *map(message, range(5)))
        broker = PickyBroker(good=3)
        with pytest.raises(PublishError, match="not everything was taken; what was not taken stays in"):
            forward(spool, broker)
        assert (numbers(broker), ids(spool), apart(spool)) == ([0, 1, 2], [3, 4], {})
        with pytest.raises(PublishError, match="the broker is gone; what was not taken stays in"):
            forward(spool, broker)
        broker.good = 100
        assert forward(spool, broker) == 2
        assert numbers(broker) == [0, 1, 2, 3, 4]

    def test_two_at_once(self, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two forwards take turns: nothing goes twice, and the order is kept."""
        monkeypatch.setattr(forwarding, "MESSAGES_AT_ONCE", 2)
        monkeypatch.setattr(spool_module, "BUSY_SECONDS", 1.0)
        put(spool, *map(message, range(9)))
        arrived: list[int] = []

        class Interrupted(MemoryOutput):
            def publish(self, message: Message) -> None:
                with pytest.raises(BusyError, match="another process is writing to"):
                    forward(spool, MemoryOutput())
                super().publish(message)

            def open(self, *args: object) -> None:
                # Between two looks at the spool, as it were.
                if not arrived:
                    arrived.append(-1)
                    other = PickyBroker(good=3)
                    with pytest.raises(PublishError):
                        forward(spool, other)
                    arrived.extend(numbers(other))

        output = Interrupted()
        assert forward(spool, output) == 6
        assert arrived[1:] + numbers(output) == list(range(9))
        assert BusyError.exit_code == 75

    def test_dropped_meanwhile(self, spool: Spool) -> None:
        """What a person drops while the broker is asked for is not sent."""
        put(spool, message(1), message(2))
        first = next(spool.messages())

        class Dropping(PickyBroker):
            def open(self, *args: object) -> None:
                spool.drop(first)

        broker = Dropping()
        assert forward(spool, broker) == 1
        assert numbers(broker) == [2]

    @pytest.mark.parametrize("size", [0, 10, 1_000, 100_000])
    def test_full(self, size: int, tmp_path: Path) -> None:
        """A spool that is full can be forwarded, and takes messages again."""
        spool = Spool(tmp_path / "spool", max_mib=1)
        spool.open(EXCHANGES, "owner", ("g1",))
        with pytest.raises(PublishError, match="is full"):  # noqa: PT012 - one of them is too many
            for number in itertools.count():
                digest = hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest()
                spool.publish(message(int(digest, 16), body=bytes(size)))
                if number % max(1, 20_000 // (size + 200)) == 0:
                    spool.flush()
        spool.abort()
        count, _ = spool.summary()
        output = MemoryOutput()
        assert forward(spool, output) == len(output.delivered) == count > 5
        put(spool, message(1, "g2"), generations=("g2",))
        assert ids(spool) == [1]

    def test_busy(self, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        """While a run holds the spool's transaction, a forward sends nothing."""
        monkeypatch.setattr(spool_module, "BUSY_SECONDS", 0.1)
        monkeypatch.setattr(spool_module, "ROWS_AT_ONCE", 1)
        put(spool, message(1))
        spool.open(EXCHANGES, "owner", ("g1",))
        spool.publish(message(2))
        output = MemoryOutput()
        with pytest.raises(BusyError, match="another process is writing to"):
            forward(Spool(spool.path), output)
        spool.close()
        assert (output.delivered, ids(spool)) == ([], [1, 2])

    def test_silent(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run waits for its turn while the broker of a forward is silent, as long as progress_timeout."""
        monkeypatch.setattr(spool_module, "BUSY_SECONDS", 0.0)
        files = ConfigFiles.from_text(f"[output]\nurl = spool:{tmp_path}/spool\nprogress_timeout = 60\n")
        spool = find_spool(files, None)
        put(spool, message(1))
        run = threading.Thread(target=put, args=(find_spool(files, None), message(2)))

        class Silent(MemoryOutput):
            def publish(self, message: Message) -> None:
                if run.ident is None:
                    run.start()
                    run.join(2)  # one that waits no longer than for another run has ended
                    assert run.is_alive()
                super().publish(message)

        output = Silent()
        forward(spool, output)
        run.join(60)
        assert numbers(output) + ids(spool) == [1, 2]

    @pytest.mark.parametrize("size", [0, 300, 20_000])
    def test_full_disk(self, size: int, spool: Spool) -> None:
        """On a full disk nothing goes twice: it is sent and taken out, or not sent at all."""
        need_root()
        directory = spool.path.parent
        directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", directory], check=True)
        try:
            count = min(200, 300_000 // (size + 300))
            put(spool, *(message(number, body=bytes(size)) for number in range(count)))
            filler = directory / "filler"
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(1))
            output = MemoryOutput()
            for _ in range(3):
                with suppress(PublishError):
                    forward(spool, output)
            assert sorted(numbers(output) + ids(spool)) == list(range(count))
            filler.unlink()
            forward(spool, output)
            assert numbers(output) == list(range(count))
        finally:
            subprocess.run(["umount", directory], check=True)


class TestRefused:
    """A broker that refuses messages."""

    def test_returned(self, spool: Spool) -> None:
        """Those that it returns are set apart with the reason, and tried again at the next forward."""
        put(spool, *map(message, range(5)))
        broker = PickyBroker(returns=[1, 2])
        assert forward(spool, broker) == 3
        assert numbers(broker) == [0, 3, 4]
        assert apart(spool) == {1: "returned", 2: "returned"}
        refusal = spool.refusal()
        assert refusal
        assert [each.message_id for each in refusal.undelivered] == [f"{1:032x}", f"{2:032x}"]
        broker.returns = [2]
        assert forward(spool, broker) == 1
        assert apart(spool) == {2: "returned"}
        broker.returns = []
        assert forward(spool, broker) == 1
        assert (ids(spool), spool.refusal()) == ([], None)

    @pytest.mark.parametrize("closes", [[0], [49], [99], [0, 1, 2, 50, 98, 99], range(100), range(0, 100, 3)])
    def test_closed(self, closes: Sequence[int], spool: Spool) -> None:
        """Those on which it closes the channel are found out among the others, which keep their order."""
        put(spool, *map(message, range(100)))
        broker = PickyBroker(closes=closes)
        assert forward(spool, broker) == 100 - len(closes)
        assert list(apart(spool)) == list(closes)
        assert numbers(broker) == [number for number in range(100) if number not in closes]
        put(spool, message(100))
        assert forward(spool, broker) == 1
        assert (numbers(broker)[-1], list(apart(spool))) == (100, list(closes))

    def test_vague(self, spool: Spool) -> None:
        """A broker that closes the channel on a message alone, and does not say so, ends no forward."""

        class Vague(PickyBroker):
            def flush(self) -> None:
                try:
                    super().flush()
                except PublishError as exc:
                    vague = [each._replace(refused=None) for each in exc.undelivered]
                    raise PublishError(exc.what, vague) from exc

        put(spool, *map(message, range(5)))
        assert forward(spool, Vague(closes=[2])) == 4
        assert list(apart(spool)) == [2]

    def test_and_lost(self, spool: Spool) -> None:
        """What was refused before the broker was lost is set apart, what may not have arrived is not."""
        put(spool, *map(message, range(10)))
        broker = PickyBroker(returns=[1], good=5)
        with pytest.raises(PublishError, match="the broker is gone"):
            forward(spool, broker)
        assert (list(apart(spool)), ids(spool)) == ([1], [1, 5, 6, 7, 8, 9])

    def test_head(self, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Many refused ones at the head hold up nothing, and each is sent once a forward."""
        monkeypatch.setattr(forwarding, "MESSAGES_AT_ONCE", 10)
        put(spool, *map(message, range(50)))
        broker = PickyBroker(returns=range(45))
        assert forward(spool, broker) == 5
        put(spool, message(50))
        opened = broker.opened
        assert forward(spool, broker) == 1
        assert numbers(broker) == [45, 46, 47, 48, 49, 50]
        assert broker.opened - opened == 1 + 1 + 5  # for what is new, the first of the others, and each batch

    def test_exchange(self, spool: Spool) -> None:
        """What is for an exchange that cannot be had is set apart; where nothing waits, none is asked for."""
        spool.open([*EXCHANGES, Exchange("bad", "topic"), Exchange("once", "fanout")], "owner", ("g1",))
        for number in range(6):
            spool.publish(message(number, exchange="bad" if number % 2 else "raw"))
        spool.close()
        broker = PickyBroker(exchanges=["bad", "once"])
        for arrived in (3, 0):
            assert forward(spool, broker) == arrived
            assert (numbers(broker), ids(spool)) == ([0, 2, 4], [1, 3, 5])
            assert set(apart(spool).values()) == {"no exchange bad"}
        broker.exchanges = []
        assert forward(spool, broker) == 3
        assert ids(spool) == []

    def test_forbidden(self, spool: Spool) -> None:
        """Where all that go one way are refused, few are tried; once they are taken, all of them go."""
        put(spool, *(message(number, routing_key="bad" if number % 2 else "a.b") for number in range(400)))
        broker = PickyBroker(forbids=["bad"])
        assert forward(spool, broker) == 200
        assert numbers(broker) == list(range(0, 400, 2))
        assert apart(spool) == dict.fromkeys(range(1, 400, 2), "no right")
        assert broker.opened < 20
        put(spool, message(401, routing_key="bad"))
        for opened in (2, 1):  # for what is new, and for the first of what was refused before
            broker.opened = 0
            assert forward(spool, broker) == 0
            assert broker.opened == opened
        assert list(apart(spool)) == list(range(1, 402, 2))
        broker.forbids = []
        assert forward(spool, broker) == 201
        assert ids(spool) == []


class TestRemembered:
    """The ids of what was forwarded."""

    def test_repeated(self, spool: Spool) -> None:
        """A run that is repeated after a forward adds nothing twice, what was set apart included."""
        put(spool, message(1), message(2))
        forward(spool, PickyBroker(returns=[2]))
        put(spool, message(1), message(2), message(3))
        assert ids(spool) == [2, 3]

    def test_forgotten(self, spool: Spool) -> None:
        """They are forgotten when no run can come back to their generation."""

        def remembered() -> int:
            with closing(sqlite3.connect(spool.path)) as database:
                (count,) = database.execute("SELECT count(*) FROM forwarded").fetchone()
            return int(count)

        put(spool, message(1, "g1"))
        forward(spool, MemoryOutput())
        put(spool, message(2, "g2"), generations=("g2", "g1"))
        assert remembered() == 1
        put(spool, message(3, "g3"), generations=("g3", "g2"))
        assert remembered() == 0

    def test_others(self, spool: Spool) -> None:
        """Another collector's run forgets only its own."""
        put(spool, message(1))
        forward(spool, MemoryOutput())
        spool.open(EXCHANGES, "another owner", ("g9",))
        spool.close()
        put(spool, message(1))
        assert ids(spool) == []


def run(output: SpoolFirstOutput, *messages: Message) -> str | None:
    """What a run does that publishes these; the problem that it tells."""
    output.open(EXCHANGES, "owner", ("g1",))
    for each in messages:
        output.publish(each)
    output.close()
    return output.problem


class TestStoreAndForward:
    """The output of `spool_when_down`."""

    def test_down(self, spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
        """A broker that is gone is a warning with the count, is asked for once a run, and nothing is lost."""
        broker = PickyBroker(good=0)
        assert run(SpoolFirstOutput(spool, broker), message(1)) is None
        assert f"stays in {spool.where}; 1 message (4 bytes) there" in caplog.text
        assert "the state stays as it was" not in caplog.text  # it does not
        assert run(SpoolFirstOutput(spool, broker), message(2)) is None
        assert broker.opened == 2
        broker.good = 100
        assert run(SpoolFirstOutput(spool, broker), message(3)) is None
        assert (numbers(broker), ids(spool)) == ([1, 2, 3], [])

    def test_one_line(self, spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
        """A broker that is lost amid many messages is one line in the log, whatever they are."""
        assert run(SpoolFirstOutput(spool, PickyBroker(good=2)), *map(message, range(9))) is None
        (told,) = caplog.messages
        assert told.endswith(
            f"stays in {spool.where}; 7 messages (28 bytes) there; the next run sends them first"
        )

    def test_full(self, tmp_path: Path) -> None:
        """A full spool is forwarded before it is filled further."""
        spool = Spool(tmp_path / "spool", max_mib=1)
        broker = PickyBroker(good=0)
        with pytest.raises(PublishError, match="is full"):  # noqa: PT012 - one of them is too many
            for number in itertools.count():
                run(SpoolFirstOutput(spool, broker), message(number, body=bytes(100_000)))
        broker.good = 1_000
        assert run(SpoolFirstOutput(spool, broker), message(100, body=bytes(100_000))) is None
        assert (numbers(broker)[-1], ids(spool)) == (100, [])

    def test_refused(self, spool: Spool) -> None:
        """What is set apart is told by every run, also by one that cannot reach the broker."""
        broker = PickyBroker(returns=[1])
        first = run(SpoolFirstOutput(spool, broker), message(1), message(2))
        assert first
        assert f"{1:032x}" in first
        broker.good = 0
        assert run(SpoolFirstOutput(spool, broker)) == first
        broker.good, broker.returns = 100, []
        assert run(SpoolFirstOutput(spool, broker), message(3)) is None
        assert sorted(numbers(broker)) == [1, 2, 3]
