"""The spool as a place to publish to: all or nothing, and each id once."""

from __future__ import annotations

import datetime
import decimal
import itertools
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import PublishError
from n6_stateful.errors import BusyError
from n6_stateful.message import Exchange, Message
from n6_stateful.output import spool as spool_module
from n6_stateful.output.forwarding import forward
from n6_stateful.output.spool import Spool
from n6_stateful.testing import MemoryOutput
from tests.record.test_history import full_disk
from tests.runtime.output_contract import Arrived, MakeOutput, OutputContract

EXCHANGES = [Exchange("raw", "topic")]
VERSION_1 = """
CREATE TABLE message (
    number INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
    generation TEXT NOT NULL, exchange TEXT NOT NULL, routing_key TEXT NOT NULL,
    properties TEXT NOT NULL, spooled REAL NOT NULL, body BLOB NOT NULL
);
CREATE TABLE exchange (name TEXT PRIMARY KEY, type TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE forwarded (message_id TEXT PRIMARY KEY, owner TEXT NOT NULL, generation TEXT NOT NULL)
WITHOUT ROWID;
INSERT INTO exchange VALUES ('raw', 'topic');
INSERT INTO forwarded VALUES ('0a', 'owner', 'g1');
INSERT INTO message VALUES (7, '01', 'owner', 'g1', 'raw', 'a.b', '{"type": "stream"}', 0, x'6f6e65');
INSERT INTO message VALUES (8, '02', 'owner', 'g1', 'raw', 'a.b', '{"headers": {"$odd": [1]}}', 0, x'');
PRAGMA application_id = 1849054032;
PRAGMA user_version = 1;
"""


def message(number: int, generation: str = "g1", body: bytes = b"body", **changes: Any) -> Message:
    """A message whose id is that number."""
    properties = {"message_id": f"{number:032x}", "delivery_mode": 2, "type": "stream", "headers": {"a": 1}}
    return Message("raw", "a.b", body, properties, generation)._replace(**changes)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """A spool whose directory is not there yet."""
    return Spool(tmp_path / "directory" / "spool")


class TestContract(OutputContract):
    @pytest.fixture
    def make_output(self, spool: Spool) -> MakeOutput:
        return lambda: Spool(spool.path)

    @pytest.fixture
    def arrived(self, spool: Spool) -> Arrived:
        def arrived() -> list[tuple[str, bytes]]:
            output = MemoryOutput()
            forward(spool, output)
            return [(each.properties["message_id"], each.body) for each in output.delivered]

        return arrived


def put(spool: Spool, *messages: Message, generations: tuple[str, ...] = ("g1",)) -> None:
    """What a run does that publishes these."""
    spool.open(EXCHANGES, "owner", generations)
    for each in messages:
        spool.publish(each)
    spool.close()


def ids(spool: Spool) -> list[int]:
    """The numbers of the messages that wait."""
    return [int(spooled.message_id, 16) for spooled in spool.messages()]


def contents(spool: Spool) -> list[Message]:
    """What a broker gets of it."""
    output = MemoryOutput()
    forward(spool, output)
    return output.delivered


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user whom the system refuses what it would let root do."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def need_root() -> None:
    """Skip where the test's own user may not mount or give files away."""
    if os.geteuid():
        pytest.skip("needs root: run it in a container, or with sudo")


class TestKeeping:
    """What is in the spool after a run."""

    def test_order(self, spool: Spool) -> None:
        """Messages come out as they went in, in their order."""
        messages = [message(number, body=b"%d" % number) for number in (3, 1, 2)]
        put(spool, *messages)
        assert contents(spool) == messages

    def test_types(self, spool: Spool) -> None:
        """Headers come out with the types that they went in with, whatever they equal."""
        values: list[Any] = [1, True, b"1", "1", decimal.Decimal("1.10"), [True, {"$set": None}]]
        values.append(datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))
        sent = [
            message(number, properties={"message_id": f"{number:032x}", "headers": {"a": value}})
            for number, value in enumerate(values)
        ]
        put(spool, *sent)
        assert repr(contents(spool)) == repr(sent)

    def test_given_up(self, spool: Spool) -> None:
        """A run that is given up leaves nothing but what it had flushed."""
        put(spool, message(1))
        spool.open(EXCHANGES, "owner", ("g1",))
        spool.publish(message(2))
        spool.flush()
        spool.publish(message(3))
        spool.abort()
        assert ids(spool) == [1, 2]

    def test_before_the_end(self, spool: Spool) -> None:
        """Others see nothing of a run before its end."""
        put(spool, message(1))
        spool.open(EXCHANGES, "owner", ("g1",))
        spool.publish(message(2))
        assert ids(Spool(spool.path)) == [1]
        spool.close()
        assert ids(Spool(spool.path)) == [1, 2]

    def test_repeated(self, spool: Spool) -> None:
        """A run that is repeated adds nothing twice."""
        put(spool, message(1), message(2))
        put(spool, message(1), message(2), message(3))
        assert ids(spool) == [1, 2, 3]

    def test_permissions(self, spool: Spool) -> None:
        """File and directory are the user's own, and there is no other file."""
        put(spool, message(1))
        contents(spool)
        assert stat.S_IMODE(spool.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(spool.path.parent.stat().st_mode) == 0o700
        assert [path.name for path in spool.path.parent.iterdir()] == ["spool"]

    def test_memory(self, tmp_path: Path) -> None:
        """The memory stays flat while the transaction grows."""
        code = f"""
import resource
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

    def test_slow_reader(self, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever lists the spool slowly holds up nobody who writes."""
        monkeypatch.setattr(spool_module, "LISTED_AT_ONCE", 2)
        monkeypatch.setattr(spool_module, "BUSY_SECONDS", 0.1)
        put(spool, *map(message, range(5)))
        reading = spool.messages()
        assert int(next(reading).message_id, 16) == 0
        put(spool, message(5))
        assert [int(each.message_id, 16) for each in reading] == [1, 2, 3, 4, 5]


class TestErrors:
    """What cannot be kept."""

    @pytest.mark.parametrize("forwarded_before", [False, True])
    def test_incomplete(self, forwarded_before: bool, spool: Spool) -> None:
        """A message that lacks a value is an error, and not left out."""
        put(spool, message(1))
        if forwarded_before:
            contents(spool)
        with pytest.raises(PublishError, match="routing_key"):
            put(spool, message(2), message(3, routing_key=None))
        spool.abort()
        assert ids(spool) == ([] if forwarded_before else [1])

    def test_full(self, tmp_path: Path) -> None:
        """A spool that is full says so, and keeps what it had."""
        spool = Spool(tmp_path / "spool", max_mib=1)
        put(spool, message(1))
        with pytest.raises(PublishError, match=r"is full.*spool_max_mib") as caught:
            put(spool, *(message(number, body=bytes(100_000)) for number in range(2, 20)))
        spool.abort()
        assert caught.value.undelivered
        assert ids(spool) == [1]

    def test_listing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error tells how many messages are rolled back, though it lists only the last."""
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
        told = f"everything that this run has published since its last save ({published}) is rolled back"
        assert told in str(caught.value)
        assert ids(spool) == [1]

    def test_swallowed(self, tmp_path: Path) -> None:
        """After an error nothing is committed, even if the collector goes on."""
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

    def test_full_disk(self, spool: Spool) -> None:
        """A full disk says so, and the spool keeps what it had."""
        put(spool, message(1))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
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

    def test_locked(self, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        """A spool that another process holds for long says so."""
        put(spool, message(1))
        monkeypatch.setattr(spool_module, "BUSY_SECONDS", 0.1)
        with closing(sqlite3.connect(spool.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(PublishError, match="locked by another process"):
                put(spool, message(2))
            spool.abort()
            with pytest.raises((BusyError, PublishError), match="another process"):
                spool.check(EXCHANGES)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE precious (data)")


def newer(path: Path) -> None:
    put(Spool(path), message(1))
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


class TestFile:
    """The file as it is found."""

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
    def test_no_spool(self, make: Callable[[Path], None], told: str, tmp_path: Path) -> None:
        """What is not a spool is left alone, with one clear error."""
        path = tmp_path / "spool"
        make(path)
        before = path.read_bytes() if path.is_file() else b""
        spool = Spool(path)
        with pytest.raises(PublishError, match=told):
            put(spool, message(1))
        spool.abort()
        assert (path.read_bytes() if path.is_file() else b"") == before

    def test_version_1(self, spool: Spool) -> None:
        """A file of version 1 is brought up to date with all that is in it and all that it remembers."""
        spool.path.parent.mkdir()
        with closing(sqlite3.connect(spool.path)) as database:
            database.executescript(VERSION_1)
        assert [(each.message_id, each.refused) for each in spool.messages()] == [("01", None), ("02", None)]
        put(spool, message(10, properties={"message_id": "0a"}), message(11))
        assert ids(spool) == [1, 2, 11]
        first, second, _ = contents(spool)
        assert first == Message("raw", "a.b", b"one", {"message_id": "01", "type": "stream"}, "g1")
        assert second.properties["headers"] == {"$odd": [1]}

    def test_check(self, spool: Spool) -> None:
        """A check makes no spool, and changes none."""
        spool.check(EXCHANGES)
        assert not spool.path.parent.exists()
        put(spool, message(1))
        before = spool.path.read_bytes()
        spool.check(EXCHANGES)
        assert spool.path.read_bytes() == before

    def test_check_without_room(self, spool: Spool) -> None:
        """A check finds a disk that is full, and a place where nothing can be made."""
        put(spool, message(1))
        with full_disk(10_000), pytest.raises(PublishError, match="cannot be used: File too large"):
            spool.check(EXCHANGES)
        with pytest.raises(PublishError, match="cannot be used: No such file"):
            Spool(Path("/proc/spool")).check(EXCHANGES)

    @pytest.mark.parametrize(
        "call",
        [
            lambda spool: put(spool, message(2)),
            lambda spool: spool.check(EXCHANGES),
            lambda spool: list(spool.messages()),
            lambda spool: spool.backlog(),
            lambda spool: forward(spool, MemoryOutput()),
        ],
        ids=["put", "check", "list", "backlog", "forward"],
    )
    def test_closed_directory(self, call: Callable[[Spool], object], spool: Spool) -> None:
        """A directory that the user may not enter is the spool's own error, whatever is asked for."""
        put(spool, message(1))
        spool.path.parent.chmod(0)
        with as_nobody(), pytest.raises(PublishError, match=r"Permission denied;.*; run this as"):
            call(spool)

    @pytest.mark.parametrize("name", ["", "spool", "spool-journal", "spool-wal"])
    @pytest.mark.parametrize("is_link", [False, True])
    def test_unsafe(self, is_link: bool, name: str, spool: Spool) -> None:
        """What others could have written is refused with what to do, and they get and put nothing there."""
        put(spool, message(1))
        path = spool.path.parent / name
        if not name:
            path.chmod(0o777)
        elif is_link:
            if path.exists():
                path.rename(path.with_name("elsewhere"))
            path.symlink_to("elsewhere")
        else:
            path.touch()
            path.chmod(0o666)
        before = spool.path.read_bytes()
        calls: list[Callable[[], object]] = [
            lambda: put(spool, message(2)),
            lambda: spool.check(EXCHANGES),
            lambda: list(spool.messages()),
            lambda: forward(spool, MemoryOutput()),
        ]
        for call in calls:
            with pytest.raises(PublishError, match=r"cannot be used: .*(chmod go-w|put the file itself)"):
                call()
        assert spool.path.read_bytes() == before

    def test_planted(self, spool: Spool) -> None:
        """Nor is a spool made or looked for in a directory where others may put one, or through a link."""
        directory = spool.path.parent
        directory.mkdir()
        spool.path.symlink_to("elsewhere")
        for told in ("symbolic link", "messages of their own there; mend it with: chmod go-w"):
            with pytest.raises(PublishError, match=told):
                spool.check(EXCHANGES)
            with pytest.raises(PublishError, match=told):
                put(spool, message(1))
            spool.path.unlink(missing_ok=True)
            directory.chmod(0o777)
        assert list(directory.iterdir()) == []

    @pytest.mark.parametrize("command", ["put", "check", "list", "forward", "drop"])
    def test_root(self, command: str, tmp_path: Path) -> None:
        """Root makes nothing in a directory that is somebody else's, who would be locked out."""
        need_root()
        directory = tmp_path / "cache"
        spool = Spool(directory / "spool")
        put(spool, message(1))
        spooled = next(spool.messages())
        for path in (directory, spool.path):
            os.chown(path, 12345, 12345)
        calls: dict[str, Callable[[], object]] = {
            "put": lambda: put(spool, message(2)),
            "check": lambda: spool.check(EXCHANGES),
            "list": lambda: list(spool.messages()),
            "forward": lambda: forward(spool, MemoryOutput()),
            "drop": lambda: spool.drop(spooled),
        }
        with pytest.raises(PublishError, match="run as that user"):
            calls[command]()
        assert [path.name for path in directory.iterdir()] == ["spool"]

    def test_root_first(self, tmp_path: Path) -> None:
        """Nor does root make the directory itself there."""
        need_root()
        os.chown(tmp_path, 12345, 12345)
        with pytest.raises(PublishError, match="run as that user"):
            put(Spool(tmp_path / "cache" / "spool"), message(1))
        assert list(tmp_path.iterdir()) == []
