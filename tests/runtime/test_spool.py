"""The spool: all or nothing, each id once, and forwarded in order."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import hashlib
import itertools
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import PublishError
from n6_stateful.errors import BusyError
from n6_stateful.message import Exchange, Message, Undelivered
from n6_stateful.output import spool as spool_module
from n6_stateful.output.spool import Spool
from n6_stateful.output.spool_first import SpoolFirstOutput
from n6_stateful.testing import MemoryOutput
from tests.runtime.test_command import Host, one_clear_error
from tests.runtime.test_command import host as host  # the fixture

EXCHANGES = [Exchange("raw", "topic")]


def message(number: int, generation: str = "g1", body: bytes = b"body") -> Message:
    properties = {"message_id": f"{number:032x}", "delivery_mode": 2, "type": "stream", "headers": {"a": 1}}
    return Message("raw", "a.b", body, properties, generation)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "directory" / "spool")


def put(spool: Spool, *messages: Message, generations: tuple[str, ...] = ("g1",)) -> None:
    spool.open(EXCHANGES, "owner", generations)
    for each in messages:
        spool.publish(each)
    spool.close()


def ids(spool: Spool) -> list[int]:
    return [int(spooled.message.properties["message_id"], 16) for spooled in spool.messages()]


def test_messages_come_out_as_they_went_in_and_in_order(spool: Spool) -> None:
    messages = [message(number, body=b"%d" % number) for number in (3, 1, 2)]
    put(spool, *messages)
    found = [spool.message(each.message_id) for each in spool.messages()]
    assert [each.message for each in found if each] == messages


def test_a_run_that_is_given_up_leaves_nothing(spool: Spool) -> None:
    put(spool, message(1))
    spool.open(EXCHANGES, "owner", ("g1",))
    spool.publish(message(2))
    spool.abort()
    assert ids(spool) == [1]


def test_what_was_flushed_stays_when_the_rest_is_given_up(spool: Spool) -> None:
    spool.open(EXCHANGES, "owner", ("g1",))
    spool.publish(message(1))
    spool.flush()
    spool.publish(message(2))
    spool.abort()
    assert ids(spool) == [1]


def test_others_see_nothing_of_a_run_before_its_end(spool: Spool) -> None:
    put(spool, message(1))
    spool.open(EXCHANGES, "owner", ("g1",))
    spool.publish(message(2))
    assert ids(Spool(spool.path)) == [1]
    spool.close()
    assert ids(Spool(spool.path)) == [1, 2]


def test_a_run_that_is_repeated_adds_nothing_twice(spool: Spool) -> None:
    put(spool, message(1), message(2))
    put(spool, message(1), message(2), message(3))
    assert ids(spool) == [1, 2, 3]


def test_file_and_directory_are_the_users_own(spool: Spool) -> None:
    put(spool, message(1))
    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.path.parent.stat().st_mode) == 0o700
    assert [path.name for path in spool.path.parent.iterdir()] == ["spool"]


def test_types(spool: Spool) -> None:
    """Headers come out with the types that they went in with, whatever they equal."""
    values: list[Any] = [1, True, b"1", "1", decimal.Decimal("1.10"), [True, {"$set": None}]]
    values.append(datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))
    sent = [
        message(number)._replace(properties={"message_id": f"{number:032x}", "headers": {"a": value}})
        for number, value in enumerate(values)
    ]
    put(spool, *sent)
    output = MemoryOutput()
    spool.forward(output)
    assert repr(output.delivered) == repr(sent)


@pytest.mark.parametrize("forwarded_before", [False, True])
def test_a_message_that_lacks_a_value_is_an_error_and_not_left_out(
    forwarded_before: bool, spool: Spool
) -> None:
    put(spool, message(1))
    if forwarded_before:
        spool.forward(MemoryOutput())
    incomplete: Any = None
    with pytest.raises(PublishError, match="routing_key"):
        put(spool, message(2), message(3)._replace(routing_key=incomplete))
    spool.abort()
    assert ids(spool) == ([] if forwarded_before else [1])


def test_the_memory_stays_flat_while_the_transaction_grows(tmp_path: Path) -> None:
    code = f"""
import resource
import shutil
from tests.runtime.test_spool import EXCHANGES, Path, Spool, message
spool = Spool(Path({str(tmp_path / "spool")!r}))
spool.open(EXCHANGES, "owner", ("g1",))
for number in range(1_000): spool.publish(message(number, body=b"x" * 1024))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number in range(1_000, 50_000): spool.publish(message(number, body=b"x" * 1024))
spool.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert float(done.stdout) < 1.2, done.stderr


# Errors


def test_a_spool_that_is_full_says_so_and_keeps_what_it_had(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_mib=1)
    put(spool, message(1))
    with pytest.raises(PublishError, match=r"is full.*spool_max_mib") as caught:
        put(spool, *(message(number, body=bytes(100_000)) for number in range(2, 20)))
    spool.abort()
    assert caught.value.undelivered
    assert ids(spool) == [1]


def test_an_error_tells_how_many_messages_are_rolled_back_though_it_lists_only_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "ROWS_AT_ONCE", 2)
    spool = Spool(tmp_path / "spool", max_mib=1)
    put(spool, message(1))
    spool.open(EXCHANGES, "owner", ("g1",))
    published = 0
    with pytest.raises(PublishError) as caught:  # noqa: PT012 - one of them is too many
        for number in itertools.count(2):
            published += 1
            spool.publish(message(number, body=bytes(100_000)))
    assert len(caught.value.undelivered) == 2 < published
    assert f"all {published} messages that this run has published since its last save" in str(caught.value)
    assert ids(spool) == [1]


def test_after_an_error_nothing_is_committed_even_if_the_collector_goes_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_mib=1)
    put(spool, message(1))
    spool.open(EXCHANGES, "owner", ("g1",))
    for number in range(2, 2_002):
        with suppress(PublishError):
            spool.publish(message(number, body=bytes(1_000)))
    with pytest.raises(PublishError, match="an earlier error has closed it"):
        spool.close()
    spool.abort()
    assert ids(spool) == [1]


@pytest.mark.parametrize("size", [0, 10, 1_000, 100_000])
def test_a_spool_that_is_full_can_be_forwarded_and_takes_messages_again(size: int, tmp_path: Path) -> None:
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
    assert spool.forward(output).sent == len(output.delivered) == count > 5
    put(spool, message(1, "g2"), generations=("g2",))
    assert ids(spool) == [1]


def test_a_full_disk_says_so(spool: Spool) -> None:
    put(spool, message(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (spool.path.stat().st_size, hard))
    try:
        with pytest.raises(PublishError, match="the state stays as it was"):
            put(spool, *(message(number, body=bytes(100_000)) for number in range(2, 100)))
        spool.abort()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert ids(spool) == [1]


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE precious (data)")
    database.close()


def newer(path: Path) -> None:
    put(Spool(path), message(1))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.write_bytes(b"garbage" * 1000), "damaged or not a spool"),
        (foreign, "not a spool"),
        (newer, "newer n6-stateful-runtime"),
        (lambda path: path.mkdir(), "cannot be used"),
    ],
    ids=["garbage", "foreign", "newer", "a directory"],
)
def test_what_is_no_spool_is_left_alone_with_one_clear_error(
    make: Callable[[Path], None], told: str, tmp_path: Path
) -> None:
    path = tmp_path / "spool"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    spool = Spool(path)
    with pytest.raises(PublishError, match=told):
        put(spool, message(1))
    spool.abort()
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_spool_that_another_process_holds_for_long_says_so(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(spool, message(1))
    monkeypatch.setattr(spool_module, "BUSY_SECONDS", 0.1)
    other = sqlite3.connect(spool.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(PublishError, match="locked by another process"):
        put(spool, message(2))
    spool.abort()
    other.close()


# Forwarding


class Failing(MemoryOutput):
    """Takes `good` flushes, then no more."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self._good = good

    def flush(self) -> None:
        if self._pending and not self._good:
            raise PublishError("the broker is gone", consequence="the state stays as it was")
        self._good -= bool(self._pending)
        super().flush()


def test_forwarding_keeps_order_ids_and_properties_and_empties_the_spool(spool: Spool) -> None:
    messages = [message(number) for number in (3, 1, 2)]
    put(spool, *messages)
    output = MemoryOutput()
    assert spool.forward(output).sent == 3
    assert output.delivered == messages
    assert ids(spool) == []
    assert spool.forward(MemoryOutput()).sent == 0


def test_a_forward_that_breaks_off_is_taken_up_where_it_was(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "FORWARD_MESSAGES", 2)
    put(spool, *map(message, range(5)))
    broken = Failing(good=1)
    with pytest.raises(PublishError, match="the broker is gone; what was not taken stays in the spool"):
        spool.forward(broken)
    assert len(broken.delivered) == 2
    assert ids(spool) == [2, 3, 4]
    output = MemoryOutput()
    assert spool.forward(output).sent == 3
    assert [each.properties["message_id"] for each in output.delivered] == [f"{n:032x}" for n in (2, 3, 4)]


def test_of_a_batch_that_the_output_takes_in_part_only_the_rest_is_sent_again(spool: Spool) -> None:
    class Picky(MemoryOutput):
        def flush(self) -> None:
            refused = [each for each in self._pending if each.properties["message_id"] == f"{2:032x}"]
            self._pending = [each for each in self._pending if each not in refused]
            super().flush()
            raise PublishError("not all", [Undelivered("a.b", f"{2:032x}", 4, "returned")])

    put(spool, *map(message, range(5)))
    picky = Picky()
    with pytest.raises(PublishError, match="returned"):
        spool.forward(picky)
    assert len(picky.delivered) == 4
    assert ids(spool) == [2]
    put(spool, *map(message, range(5)))
    assert ids(spool) == [2]


def test_two_forwards_at_once_send_nothing_twice(spool: Spool) -> None:
    put(spool, message(1))

    class Meanwhile(MemoryOutput):
        def publish(self, message: Message) -> None:
            with pytest.raises(BusyError, match="forwarded by another process"):
                Spool(spool.path).forward(MemoryOutput())
            super().publish(message)

    output = Meanwhile()
    assert spool.forward(output).sent == 1
    assert BusyError.exit_code == 75


def test_a_run_that_is_repeated_after_a_forward_adds_nothing_twice(spool: Spool) -> None:
    put(spool, message(1))
    spool.forward(MemoryOutput())
    put(spool, message(1), message(2))
    assert ids(spool) == [2]


def test_forwarded_ids_are_forgotten_when_no_run_can_come_back_to_their_generation(spool: Spool) -> None:
    def remembered() -> int:
        database = sqlite3.connect(spool.path)
        (count,) = database.execute("SELECT count(*) FROM forwarded").fetchone()
        database.close()
        return int(count)

    put(spool, message(1, "g1"))
    spool.forward(MemoryOutput())
    put(spool, message(2, "g2"), generations=("g2", "g1"))
    assert remembered() == 1
    put(spool, message(3, "g3"), generations=("g3", "g2"))
    assert remembered() == 0


def test_other_collectors_ids_are_not_forgotten(spool: Spool) -> None:
    put(spool, message(1))
    spool.forward(MemoryOutput())
    spool.open(EXCHANGES, "another owner", ("g9",))
    spool.close()
    put(spool, message(1))
    assert ids(spool) == []


# Store and forward


def test_with_spool_when_down_a_broker_that_is_gone_is_a_warning_and_nothing_is_lost(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    down = SpoolFirstOutput(spool, Failing(good=0))
    down.open(EXCHANGES, "owner", ("g1",))
    down.publish(message(1))
    down.close()
    assert f"stays in {spool.where}\n1 message (4 bytes) there" in caplog.text
    assert "the state stays as it was" not in caplog.text  # it does not
    back = MemoryOutput()
    up = SpoolFirstOutput(spool, back)
    up.open(EXCHANGES, "owner", ("g1",))
    up.publish(message(2))
    up.close()
    assert back.delivered == [message(1), message(2)]
    assert ids(spool) == []


def test_the_command_keeps_what_a_dead_broker_does_not_take_and_exits_with_0(host: Host) -> None:
    host.change_config(
        f"url = spool:{host.directory}/spool",
        f"url = amqp://127.0.0.1:9/\nspool_when_down = {host.directory}/spool",
    )
    done = host.run()
    assert done.returncode == 0, done.stderr
    assert "WARNING" in done.stderr
    assert "2 messages (6 bytes) there" in done.stderr
    assert "{'taken': 2}" in host.run("state", "show").stdout
    assert "2 messages (6 bytes) in the spool" in host.run("spool", "list").stdout
    one_clear_error(host.run("spool", "forward"), 69, "127.0.0.1:9")
    assert "2 messages" in host.run("spool", "list").stdout


# The command


def test_list_shows_a_line_a_message_and_the_sum(host: Host) -> None:
    host.run()
    lines = host.run("spool", "list").stdout.splitlines()
    assert len(lines) == 3
    assert all("my-provider.lines  3 bytes" in line for line in lines[:2])
    assert lines[2].startswith("2 messages (6 bytes) in the spool")
    assert "1 of them not shown" in host.run("spool", "list", "--limit", "1").stdout


def test_show_writes_the_body_as_it_is(host: Host) -> None:
    host.run()
    message_id = host.run("spool", "list").stdout.split()[1]
    done = host.run("spool", "show", message_id[:8])
    assert done.stdout == "one"
    assert message_id in done.stderr
    one_clear_error(host.run("spool", "show", "zzz"), 1, "no message with the id 'zzz'")


def test_what_is_dropped_is_gone_and_a_run_that_is_repeated_does_not_bring_it_back(host: Host) -> None:
    host.run()
    message_id = host.run("spool", "list").stdout.split()[1]
    one_clear_error(host.run("spool", "drop", message_id), 1, "give --yes; nothing was changed")
    assert "2 messages" in host.run("spool", "list").stdout
    assert message_id in host.run("spool", "drop", message_id, "--yes").stdout
    assert message_id not in host.run("spool", "list").stdout
    one_clear_error(
        host.run("spool", "drop", message_id, "--yes"), 1, f"no message with the id {message_id!r}"
    )
    shutil.rmtree(host.directory / "cache")  # as if the run had been killed before it saved its state
    host.run()
    left = host.run("spool", "list").stdout
    assert "1 message (3 bytes)" in left
    assert message_id not in left


@pytest.mark.parametrize("message_id", ["", "*", "?", "zzz"])
def test_no_message_is_dropped_but_one_that_is_named(message_id: str, host: Host) -> None:
    host.feed.write_text("one\n")
    host.run()
    one_clear_error(host.run("spool", "drop", message_id, "--yes"), 1, "no message with the id")
    assert host.run("spool", "list").stdout.count("my-provider.lines") == 1


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_that_is_none_is_wrong_usage(limit: str, host: Host) -> None:
    assert host.run("spool", "list", "--limit", limit).returncode == 2


def test_what_is_given_to_forward_is_not_ignored(host: Host) -> None:
    host.run()
    one_clear_error(host.run("spool", "forward", "--output", "amqp://127.0.0.1:9/"), 78, "--to")
    one_clear_error(host.run("spool", "forward", "--to", f"spool:{host.directory}/other"), 78, "--to names")


def test_a_forward_before_any_run_has_nothing_to_send_and_makes_no_file(tmp_path: Path) -> None:
    assert Spool(tmp_path / "none" / "spool").forward(MemoryOutput()) == (0, [])
    assert not list(tmp_path.iterdir())


def test_a_forward_that_may_not_lock_the_spool_is_one_clear_error(spool: Spool) -> None:
    put(spool, message(1))
    spool.path.with_name("spool.lock").mkdir()
    with pytest.raises(PublishError, match="cannot be used: Is a directory"):
        spool.forward(MemoryOutput())


def test_without_a_broker_to_forward_to_there_is_one_clear_error(host: Host) -> None:
    host.run()
    one_clear_error(host.run("spool", "forward"), 78, "--to amqp://")


def test_a_spool_that_is_not_there_lists_nothing_and_is_not_made(host: Host) -> None:
    assert host.run("spool", "list").stdout.startswith("0 messages (0 bytes)")
    assert not (host.directory / "spool").exists()


class TestForwardingUnderTrouble:
    """A forward that meets a busy spool, a full disk, or an old file."""

    def test_busy(self, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        """While a run holds the spool's transaction, a forward sends nothing."""
        monkeypatch.setattr(spool_module, "BUSY_SECONDS", 0.1)
        put(spool, message(1))
        spool.open(EXCHANGES, "owner", ("g1",))
        spool.publish(message(2))
        spool._write()
        output = MemoryOutput()
        with pytest.raises(BusyError, match="a run is writing to"):
            Spool(spool.path).forward(output)
        spool.close()
        assert (output.delivered, ids(spool)) == ([], [1, 2])

    def test_full_disk(self, spool: Spool) -> None:
        """Where what is sent could not be dropped, nothing is sent."""
        need_root()
        directory = spool.path.parent
        directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", directory], check=True)
        try:
            put(spool, *(message(number, body=bytes(20_000)) for number in range(5)))
            filler = directory / "filler"
            with suppress(OSError):
                filler.write_bytes(bytes(1 << 20))
            output = MemoryOutput()
            with pytest.raises(PublishError, match=r"is full|disk I/O error|No space left"):
                spool.forward(output)
            assert output.delivered == []
            filler.unlink()
            assert spool.forward(output).sent == len(output.delivered) == 5
        finally:
            subprocess.run(["umount", directory], check=True)

    def test_version_1(self, spool: Spool) -> None:
        """A file of version 1 is brought up to date with all that is in it."""
        put(spool, message(1), message(2))
        with contextlib.closing(sqlite3.connect(spool.path)) as database:
            database.execute("ALTER TABLE message DROP COLUMN refused")
            database.execute("PRAGMA user_version = 1")
        assert ids(spool) == [1, 2]
        output = MemoryOutput()
        assert spool.forward(output).sent == 2

    def test_slow_reader(self, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever lists the spool slowly holds up nobody who writes."""
        monkeypatch.setattr(spool_module, "LISTED_AT_ONCE", 2)
        monkeypatch.setattr(spool_module, "BUSY_SECONDS", 0.1)
        put(spool, *map(message, range(5)))
        reading = spool.messages()
        assert int(next(reading).message_id, 16) == 0
        put(spool, message(5))
        assert [int(each.message_id, 16) for each in reading] == [1, 2, 3, 4, 5]


class TestOwner:
    """Root, who would lock the collector's own user out."""

    def test_root(self, tmp_path: Path) -> None:
        """Root makes nothing in a directory that is somebody else's."""
        need_root()
        directory = tmp_path / "cache"
        directory.mkdir()
        os.chown(directory, 12345, 12345)
        spool = Spool(directory / "spool")
        with pytest.raises(PublishError, match="run this as that user"):
            put(spool, message(1))
        assert list(directory.iterdir()) == []

    def test_check(self, spool: Spool) -> None:
        """A check of a spool that is not there yet makes none."""
        spool.check(EXCHANGES)
        assert not spool.path.parent.exists()
        put(spool, message(1))
        spool.check(EXCHANGES)
        assert ids(spool) == [1]


def need_root() -> None:
    """Skip where the test's own user may not mount or give files away."""
    if os.geteuid():
        pytest.skip("needs root: run it in a container, or with sudo")
