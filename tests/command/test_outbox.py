"""The `outbox` commands."""

from __future__ import annotations

import json
import os

import pika
import pytest

from tests.command.conftest import Host, SampleCollector, state_file

RABBITMQ = "amqp://guest:guest@127.0.0.1:5672/"


@pytest.fixture
def waiting(host: Host) -> Host:
    """A machine on which three messages wait, the second of them refused."""
    host.down.touch()
    host.collect("three")
    host.journal.refuse({2: "no queue is bound"})
    host.down.unlink()
    return host


def test_list(waiting: Host) -> None:
    """A line for each message, the refused ones last with the reason, and the sum; or JSON."""
    *lines, total = waiting("outbox", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "3", "2"]
    assert "  raw  my-provider.lines  3 bytes  " in lines[0]
    assert lines[2].endswith("  refused: no queue is bound")
    assert total == f"3 messages (11 bytes) in {waiting.journal.where}"
    assert waiting("outbox", "list", "--limit", "1").out.endswith(", 2 of them not shown\n")
    first, _, last = map(json.loads, waiting("outbox", "list", "--json").out.splitlines())
    assert (first["id"], first["refused"], last["refused"]) == (1, None, "no queue is bound")
    names = {"id", "message_id", "exchange", "routing_key", "properties", "queued", "refused", "size"}
    assert {*first} == names


def test_show(waiting: Host) -> None:
    """The body goes to standard output as it is, the rest to standard error."""
    done = waiting("outbox", "show", "3")
    assert (done.out, json.loads(done.err)["id"]) == ("three", 3)
    waiting.fails(1, "no message 9 waits", "outbox", "show", "9")


def test_deliver(waiting: Host) -> None:
    """`deliver` sends what waits, and writes the state file; with the broker down everything still waits."""
    waiting.down.touch()
    assert (waiting("outbox", "deliver").code, waiting.journal.backlog().messages) == (69, 3)
    waiting.down.unlink()
    assert not state_file(waiting).exists()
    assert waiting("outbox", "deliver").out == f"delivered 3 messages of {waiting.journal.where}\n"
    assert (waiting.delivered, state_file(waiting).exists()) == (["one", "three", "two"], True)


def test_deliver_to(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--to` names a broker, which it needs where the outbox is the destination."""
    exchange = f"n6-command-test-{os.urandom(6).hex()}"
    monkeypatch.delattr(SampleCollector, "send")
    monkeypatch.setattr(SampleCollector, "output_queue", {"exchange": exchange, "exchange_type": "topic"})
    host("--output", "outbox:")
    host.fails(78, "give --to amqp://", "outbox", "deliver", "--to", "outbox:")
    with pika.BlockingConnection(pika.URLParameters(RABBITMQ)) as connection:
        channel = connection.channel()
        channel.exchange_declare(exchange, "topic", durable=True)
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, exchange, "#")
        assert host("outbox", "deliver", "--to", RABBITMQ).code == 0
        assert [channel.basic_get(queue, auto_ack=True)[2] for _ in range(2)] == [b"one", b"two"]
        channel.exchange_delete(exchange)


@pytest.mark.parametrize(("which", "left"), [("1 3", [2]), ("--refused", [1, 3]), ("--all", [])])
def test_drop(which: str, left: list[int], waiting: Host) -> None:
    """`drop` removes messages for good, if all are there and the user agrees; the state file is written once
    nothing waits."""
    drop = "outbox", "drop", *which.split()
    assert waiting(*drop, "9", "--yes").code == waiting("outbox", "drop").code == 1
    done = waiting(*drop)
    assert (done.code, "Drop " in done.err, waiting.journal.backlog().messages) == (1, True, 3)
    assert waiting(*drop, "--yes").out.startswith(f"dropped {3 - len(left)} message")
    assert sorted(message.id for message in waiting.journal.waiting()) == left
    assert state_file(waiting).exists() == (not left)
