"""The `outbox` commands."""

from __future__ import annotations

import json
import os
import pickle

import pika
import pytest

from tests.command.conftest import Host, SampleCollector

NAME = "my-provider.lines.SampleCollector"


@pytest.fixture
def waiting(host: Host) -> Host:
    """A machine on which three messages wait, one of them refused."""
    host.down.touch()
    host.collect("three")
    host.journal.refuse({2: "no queue is bound"})
    host.down.unlink()
    return host


def filed(host: Host) -> bool:
    return (host.directory / "cache" / f"{NAME}.pickle").exists()


class TestList:
    """`outbox list` and `outbox show`."""

    def test_list(self, waiting: Host) -> None:
        """A line for each message, the refused ones last with the reason, and the sum."""
        *lines, total = waiting("outbox", "list").out.splitlines()
        assert [line.split()[0] for line in lines] == ["1", "3", "2"]
        assert "  raw  my-provider.lines  3 bytes  " in lines[0]
        assert lines[2].endswith("  refused: no queue is bound")
        assert total == f"3 messages (11 bytes) in {waiting.directory}/cache/{NAME}.sqlite"
        assert waiting("outbox", "list", "--limit", "1").out.endswith(", 2 of them not shown\n")

    def test_json(self, waiting: Host) -> None:
        """As JSON it is an object a line, without the bodies."""
        first, _, last = map(json.loads, waiting("outbox", "list", "--json").out.splitlines())
        assert {*first} == {
            "id", "message_id", "exchange", "routing_key", "properties", "queued", "refused", "size",
        }  # fmt: skip
        assert (first["id"], first["refused"], last["refused"]) == (1, None, "no queue is bound")

    def test_show(self, waiting: Host) -> None:
        """The body goes to standard output as it is, the rest to standard error."""
        done = waiting("outbox", "show", "3")
        assert (done.out, json.loads(done.err)["id"]) == ("three", 3)
        missing = waiting("outbox", "show", "9")
        assert (missing.code, "no message 9 waits" in missing.err) == (1, True)

    def test_none(self, host: Host) -> None:
        """Before the first run there is nothing, and nothing is made."""
        assert host("outbox", "list").out.startswith("0 messages (0 bytes) in ")
        assert host("outbox", "list", "--json").out == ""
        assert not (host.directory / "cache").exists()


class TestDeliver:
    """`outbox deliver`."""

    def test_all(self, waiting: Host) -> None:
        """It delivers what waits, and writes the state file."""
        assert not filed(waiting)
        done = waiting("outbox", "deliver")
        assert (done.code, done.out) == (0, f"delivered 3 messages of {waiting.journal.where}\n")
        assert (waiting.delivered, filed(waiting)) == (["one", "three", "two"], True)

    def test_down(self, waiting: Host) -> None:
        """With the broker down it ends with 69, and everything still waits."""
        waiting.down.touch()
        assert (waiting("outbox", "deliver").code, waiting.journal.backlog().messages) == (69, 3)

    def test_destination(self, waiting: Host) -> None:
        """Where the outbox is the destination it needs to know where to."""
        done = waiting("outbox", "deliver", "--to", "outbox:")
        assert (done.code, "give --to amqp://" in done.err) == (78, True)

    def test_to(self, waiting: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """`--to` names a broker."""
        monkeypatch.delattr(SampleCollector, "send")
        exchange = f"n6-command-test-{os.urandom(6).hex()}"
        monkeypatch.setattr(SampleCollector, "output_queue", {"exchange": exchange, "exchange_type": "topic"})
        journal = waiting.journal
        journal.delivered([1, 2, 3])
        journal.unlock()
        waiting.feed.write_text(waiting.feed.read_text() + "four\n")
        assert waiting("--output", "outbox:").code == 0
        with pika.BlockingConnection(pika.URLParameters("amqp://guest:guest@127.0.0.1:5672/")) as connection:
            channel = connection.channel()
            channel.exchange_declare(exchange, "topic", durable=True)
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, exchange, "#")
            done = waiting("outbox", "deliver", "--to", "amqp://guest:guest@127.0.0.1:5672/")
            assert done.code == 0, done.err
            assert channel.basic_get(queue, auto_ack=True)[2] == b"four"
            channel.exchange_delete(exchange)


class TestDrop:
    """`outbox drop`."""

    def test_one(self, waiting: Host) -> None:
        """One message is dropped for good, if the user agrees."""
        done = waiting("outbox", "drop", "2")
        assert (done.code, "refused: no queue is bound" in done.err) == (1, True)
        assert waiting("outbox", "drop", "2", "--yes").out.startswith("dropped 1 message of ")
        waiting()
        assert waiting.delivered == ["one", "three"]

    @pytest.mark.parametrize(("which", "left"), [("--refused", [1, 3]), ("--all", [])])
    def test_many(self, which: str, left: list[int], waiting: Host) -> None:
        """All refused ones, or all, are dropped; the state file is written once nothing waits any more."""
        assert waiting("outbox", "drop", which, "--yes").code == 0
        assert [message.id for message in waiting.journal.waiting()] == left
        assert filed(waiting) == (not left)
        if not left:
            file = waiting.directory / "cache" / f"{NAME}.pickle"
            assert pickle.loads(file.read_bytes()) == {"taken": 3}

    def test_usage(self, waiting: Host) -> None:
        """It wants to know which."""
        assert waiting("outbox", "drop", "--yes").code == 2
        assert waiting("outbox", "drop", "9", "--yes").code == 1

    @pytest.mark.parametrize("argv", [["deliver"], ["drop", "--all", "--yes"]])
    def test_does_not_race(self, argv: list[str], waiting: Host) -> None:
        """What changes the outbox waits for no run."""
        journal = waiting.journal
        journal.lock()
        assert waiting("outbox", *argv).code == 75
        assert waiting("outbox", "list").code == 0
        journal.unlock()
