"""The journal as a file: its owner, its size, and what happens on a bad disk."""

from __future__ import annotations

import os
import random
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from n6_stateful import sqlite
from n6_stateful.errors import StateError
from n6_stateful.journal import CorruptError, Journal, journals_in
from tests.journal.conftest import MakeJournal
from tests.journal.helpers import at_once, ids, message, numbers, put, states

NOBODY = 65534


@pytest.fixture
def engine() -> str:
    return "sqlite"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond that size, bytes, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


class TestFile:
    def test_private(self, make_journal: MakeJournal) -> None:
        """Directory, file and lock are for this user alone, whatever the umask."""
        umask = os.umask(0)
        try:
            journal = make_journal()
            journal.lock()
        finally:
            os.umask(umask)
        for path in (journal.path, journal.path.with_suffix(".lock")):
            assert path.stat().st_mode & 0o777 == 0o600
        assert journal.path.parent.stat().st_mode & 0o777 == 0o700

    def test_single_file(
        self, journal: Journal, make_journal: MakeJournal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At rest there is one file and its lock, which can be copied under any name; its commits survive a
        power cut, and it shrinks again."""
        for number in range(40):
            journal.put(message(number, bytes(1 << 20)))
        journal.commit(b"state")
        assert {path.suffix for path in journal.path.parent.iterdir()} == {".sqlite", ".lock"}
        names = ("page_size", "auto_vacuum", "synchronous", "secure_delete", "journal_mode")
        values = [journal._execute(f"PRAGMA {name}").fetchone()[0] for name in names]
        assert values == [16384, 2, 3, 0, "delete"]
        assert journal.path.stat().st_size > 40 << 20
        monkeypatch.setattr(sqlite, "FREE_PAGES", 64)
        journal.delivered(ids(journal))
        assert journal.path.stat().st_size < 1 << 20
        copy = make_journal("Copy")
        shutil.copy(journal.path, copy.path)
        assert (states(copy), copy.exists(), copy.id) == ([b"state"], True, journal.id)

    @pytest.mark.parametrize("mode", [0o720, 0o702])
    def test_writable_by_others(self, journal: Journal, mode: int) -> None:
        """A journal to which others may write is refused, and the error says how to forbid it."""
        for path in (journal.path, journal.path.parent):
            journal.unlock()
            path.chmod(mode)
            for use in (journal.lock, journal.exists):
                with pytest.raises(StateError, match=f"others may write to it; .*; chmod go-w {path}"):
                    use()
            path.chmod(0o700)
            journal.lock()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
    def test_another_user(self, make_journal: MakeJournal) -> None:
        """Root does not touch what belongs to another user, and makes nothing in a directory of his."""
        journal = make_journal()
        journal.path.parent.mkdir(mode=0o700)
        os.chown(journal.path.parent, NOBODY, NOBODY)
        for use in (journal.lock, journal.open, make_journal("sub/C").lock):
            with pytest.raises(StateError, match=f"belongs to another user; .*run as uid {NOBODY}"):
                use()
        assert list(journal.path.parent.iterdir()) == []

    def test_holder(self, journal: Journal, make_journal: MakeJournal) -> None:
        """The holder is host, process and beginning of a run; when that has ended, there is none."""
        holder = make_journal().holder()
        assert holder is not None
        assert (holder.host, holder.pid, holder.since[:2]) == (os.uname().nodename, os.getpid(), "20")
        journal.unlock()
        assert make_journal().holder() is None

    def test_list(self, journal: Journal) -> None:
        """Journals are found in a directory, damaged ones too; databases of other programs are not."""
        directory = journal.path.parent
        (directory / "a.b.Damaged.sqlite").write_bytes(b"garbage" * 1_000)
        with sqlite3.connect(directory / "other.sqlite") as other:
            other.execute("CREATE TABLE n6_collector (name)")
        other.close()
        assert [found.name for found in journals_in(directory)] == ["a.b.Damaged", journal.name]
        assert journals_in(directory / "nowhere") == []


class TestFullDisk:
    def test_commit(self, journal: Journal) -> None:
        """A commit without room changes nothing; with room again, a later one commits all of it."""
        put(journal, 0)
        journal.commit(b"old")
        for number in range(1, 30):
            journal.put(message(number, bytes(300_000)))
        journal._execute("PRAGMA max_page_count = 20")
        with pytest.raises(StateError, match=r"disk is full; nothing was saved or published; .* has space"):
            journal.commit(b"new")
        journal._execute("PRAGMA max_page_count = 100000")
        with largest_file(1 << 20), pytest.raises(StateError, match="nothing was saved or published"):
            journal.commit(b"new")
        assert (numbers(journal), states(journal)) == ([0], [b"old"])
        journal.put(message(30))
        journal.commit(b"new")
        assert (numbers(journal), states(journal)) == (list(range(31)), [b"new", b"old"])

    def test_buffer(self, journal: Journal) -> None:
        """After a message that could not be buffered nothing is committed any more."""
        put(journal, 0)
        with largest_file(20 << 20), pytest.raises(StateError, match="could not be buffered") as caught:
            any(journal.put(message(number, bytes(1 << 20))) for number in range(1, 30))  # type: ignore[func-returns-value]
        for use in (lambda: journal.commit(b"state"), lambda: put(journal, 1)):
            with pytest.raises(StateError) as again:
                use()
            assert str(again.value) == str(caught.value)
        assert (numbers(journal), states(journal)) == ([], [])

    def test_delivery(self, journal: Journal) -> None:
        """If delivered messages could not be deleted, nothing is sent."""
        put(journal, *range(600))
        journal.commit()
        with largest_file(0), pytest.raises(StateError, match="nothing was sent, since every run would"):
            journal.prove_deletable()
        with largest_file(0), pytest.raises(StateError, match="will be sent again, with the same ids"):
            journal.delivered(ids(journal)[:10])
        journal.prove_deletable()
        assert numbers(journal) == list(range(600))


class TestCorrupt:
    def use(self, journal: Journal) -> None:
        """Everything that reads and writes."""
        journal.lock()
        for _ in journal.waiting():
            pass
        for generation in journal.generations():
            journal.pickle(generation.number)
        journal.runs(), journal.backlog()
        journal.put_run(5.0, {})
        put(journal, 1)
        journal.commit(b"new", run="r")
        journal.prove_deletable()
        journal.delivered(ids(journal))

    def test_hot_journal(self, make_journal: MakeJournal) -> None:
        """The commit of a killed process is rolled back by the first reader."""
        journal = make_journal()
        put(journal, *range(100))
        journal.commit(b"old")
        journal.unlock()

        def work() -> None:
            child = make_journal()
            child.lock()
            for number in range(100, 130):
                child.put(message(number, bytes(1 << 20)))
            child._put_state = lambda *_: os._exit(9)  # type: ignore[method-assign]
            child.commit(b"new")

        whole, left = journal.path.stat().st_size, Path(f"{journal.path}-journal")
        assert at_once(1, work) == [9]
        assert left.exists()
        assert journal.path.stat().st_size > whole
        assert (numbers(journal), states(journal)) == (list(range(100)), [b"old"])
        assert not left.exists()

    def test_moved_aside(self, journal: Journal) -> None:
        """A run moves a corrupt file aside, and commits nothing more; the next one begins anew."""
        put(journal, 1)
        journal.commit(b"old")
        old = journal.id
        journal._close()
        journal.path.write_bytes(b"garbage" * 10_000)
        with pytest.raises(CorruptError, match=r"file is not a database; .*; it was moved to ") as caught:
            journal.backlog()
        assert Path(str(caught.value).rpartition(" ")[2]).read_bytes() == b"garbage" * 10_000
        for use in (lambda: journal.commit(b"late"), lambda: put(journal, 2)):
            with pytest.raises(CorruptError):
                use()
        journal.unlock()
        journal.lock()
        assert journal.id != old
        assert journal.commit(b"new", at_least=8) == 8
        assert (numbers(journal), states(journal)) == ([], [b"new"])

    def test_rollback_journal(self, journal: Journal) -> None:
        """What a killed run has left beside the file is moved with it, not into the next journal."""
        left = Path(f"{journal.path}-journal")
        left.write_bytes(b"left by a kill")
        aside = journal._moved_aside().rpartition(" ")[2]
        assert Path(f"{aside}-journal").read_bytes() == b"left by a kill"
        assert not left.exists()

    def test_readers_leave_it(self, journal: Journal, make_journal: MakeJournal) -> None:
        """A reader leaves a corrupt file where it is; mails, which write without the lock, do not, but
        while another run has the lock."""
        journal._close()
        journal.path.write_bytes(b"garbage" * 10_000)
        for use in (make_journal().exists, make_journal().runs, make_journal().open):
            with pytest.raises(CorruptError, match="the next run moves it aside and goes on from the state"):
                use()
        journal.unlock()
        mail = make_journal()
        with pytest.raises(CorruptError, match="it was moved to"):
            mail.open()
        mail.unlock()
        self.use(journal)

    @pytest.mark.parametrize("how", ["garbage", "zeros", "cut"])
    def test_pages(self, journal: Journal, make_journal: MakeJournal, tmp_path: Path, how: str) -> None:
        """With any page damaged, an operation works or ends with a `StateError`."""
        for number in range(30):
            journal.put(message(number, os.urandom(20_000)))
            journal.commit(os.urandom(30_000))
            journal.put_run(number, {"newest": "x" * 500})
        journal.unlock()
        content = journal.path.read_bytes()
        chance, corrupt = random.Random(1), 0
        for number, place in enumerate([*range(0, 100, 7), *range(16_384, len(content), 16_384)]):
            damaged = bytearray(content)
            if how == "cut":
                del damaged[place:]
            else:
                damaged[place : place + 100] = chance.randbytes(100) if how == "garbage" else bytes(100)
            copy = make_journal(f"Copy{number}")
            copy.path.write_bytes(damaged)
            copy.path.chmod(0o600)
            try:
                self.use(copy)
            except CorruptError:
                corrupt += 1
                copy.unlock()
                self.use(copy)
            except StateError:
                pass
            copy.unlock()
        assert corrupt >= 10

    def test_others_are_not_corrupt(self, journal: Journal, make_journal: MakeJournal) -> None:
        """A busy file is an error, but not treated as corrupt."""
        put(journal, 1)
        journal.commit()
        other = make_journal(timeout=0.1)
        journal._execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateError, match=r"database is locked; .*try again later") as caught:
            other.backlog()
        assert not isinstance(caught.value, CorruptError)
        journal._execute("ROLLBACK")
        assert other.backlog().messages == 1
