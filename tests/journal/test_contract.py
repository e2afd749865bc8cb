"""What every journal promises, in SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from n6_stateful.errors import CollectorError, PublishError, StateError, StateLockedError
from n6_stateful.journal import Backlog, DamagedError, Journal
from tests.journal.conftest import MakeJournal
from tests.journal.helpers import at_once, ids, lock_when_free, message, numbers, put, states


def fail_after_messages(journal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commits fail behind the first messages."""
    insert: Callable[..., None] = journal._execute_many

    def fail(sql: str, rows: Any) -> None:
        insert(sql, rows)
        journal._execute("INSERT INTO n6_no_such_table VALUES (1)")

    monkeypatch.setattr(journal, "_execute_many", fail)


class TestHead:
    def test_nothing_there(self, make_journal: MakeJournal) -> None:
        """Where there is no journal, reading finds nothing and makes nothing."""
        journal = make_journal("Nobody")
        assert (journal.generations(), journal.runs(), list(journal.waiting())) == ([], [], [])
        assert (journal.backlog(), journal.holder()) == (Backlog(0, 0, 0, None), None)
        assert not journal.exists()
        assert not journal.path.parent.exists()

    def test_made_once(self, make_journal: MakeJournal) -> None:
        """A journal has one random id from its first `open` on; what is set in its head stays."""
        first, second, other, reader = (make_journal(name) for name in "CCDC")
        first.open()
        second.lock()
        other.open()
        assert first.id == second.id != other.id
        assert (len(first.id), first.newest, first.filed, first.url) == (32, 0, 0, "")
        second.set_url("digest")
        second.mark_filed(3)
        assert reader.exists()
        assert (reader.id, reader.url, reader.filed) == (first.id, "digest", 3)

    def test_names_are_apart(self, make_journal: MakeJournal) -> None:
        """A name with other capitals, or another one's wildcards in it, is another collector's."""
        journals = [make_journal(name) for name in ("Feed", "FEED", "F_ed", "F%d", "Fèed")]
        for number, journal in enumerate(journals):
            journal.lock()
            put(journal, number)
            journal.commit(b"%d" % number)
            journal.put_run(number, {})
        assert [numbers(journal) for journal in journals] == [[0], [1], [2], [3], [4]]
        assert [states(journal) for journal in journals] == [[b"0"], [b"1"], [b"2"], [b"3"], [b"4"]]
        assert [len(journal.runs()) for journal in journals] == [1] * 5
        journals[0].delivered(ids(journals[1]))
        assert numbers(journals[1]) == [1]


class TestCommit:
    def test_together(self, journal: Journal, make_journal: MakeJournal) -> None:
        """Messages and state are there after the commit, for everybody, and not before."""
        reader = make_journal()
        put(journal, 1, 2)
        assert (numbers(reader), states(reader), journal.buffered) == ([], [], 2)
        pickle = os.urandom(3_000_000) + b"\0'\\"
        assert journal.commit(pickle, run="r") == 1
        assert (numbers(reader), states(reader), journal.buffered) == ([1, 2], [pickle], 0)
        (generation,) = reader.generations()
        assert (generation.number, generation.run, generation.size) == (1, "r", len(pickle))
        assert (generation.saved[:2], generation.saved[-1]) == ("20", "Z")

    def test_exact(self, journal: Journal) -> None:
        """Messages come out as they were put in, byte for byte and in order, whatever they contain."""
        headers = {"text": "zażółć 🦆 \0 ' \\ % ?", "list": [1, None, True, {"a": -(2**63)}]}
        sent = [
            message(1, bytes(range(256)) * 100, headers=headers, delivery_mode=2),
            message(2, b""),
            message(2, b"the same id")._replace(exchange="é" * 127, routing_key="#" * 255),
            message(3, b"\0" * 3_000_000, headers={"long": "x" * 120_000}),
        ]
        for one in sent:
            journal.put(one)
        journal.commit()
        for one, waiting in zip(sent, journal.waiting(), strict=True):
            assert (waiting.exchange, waiting.routing_key, waiting.body) == one[:3]
            assert {"message_id": waiting.message_id, **waiting.properties} == one.properties
            assert (waiting.size, waiting.refused) == (len(one.body), None)
            assert time.time() - 60 < waiting.queued <= time.time()

    def test_fails(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        """A commit that fails changes nothing; the next one commits all of it, in its order, also what did
        not fit into memory."""
        put(journal, *range(1_000))
        journal.commit(b"old")
        sizes = [0, 7_000_000, *[5] * 600, 6_000_000, 8_000_000, 3_000_000, 1]
        for number, size in enumerate(sizes[:-1]):
            journal.put(message(number, b"%d" % (number % 10) * size))
        fail_after_messages(journal, monkeypatch)
        with pytest.raises(StateError, match="nothing was saved or published"):
            journal.commit(b"new")
        assert (numbers(journal), states(journal)) == (list(range(1_000)), [b"old"])
        monkeypatch.undo()
        journal.put(message(len(sizes) - 1, b"x"))
        assert journal.commit(b"newer") == 2
        assert states(journal) == [b"newer", b"old"]
        journal.delivered(ids(journal)[:1_000])
        for number, waiting in enumerate(journal.waiting()):
            expected = b"%d" % (number % 10) if number + 1 < len(sizes) else b"x"
            assert (int(waiting.message_id, 16), waiting.body) == (number, expected * sizes[number])
        assert number + 1 == len(sizes)

    def test_overtaken(self, journal: Journal, make_journal: MakeJournal) -> None:
        """A run that was overtaken saves and publishes nothing, however often others have saved."""
        journal.commit(b"mine")
        put(journal, 2)
        other = make_journal()
        for count in range(1, 12):
            put(other, 100)
            other.commit(b"theirs")
            for use in (lambda: journal.commit(b"late"), lambda: put(journal, 3)):
                with pytest.raises(StateError, match="another run has taken over"):
                    use()
            assert (numbers(journal), states(journal)[0]) == ([100] * count, b"theirs")

    def test_without_the_lock(self, make_journal: MakeJournal) -> None:
        """Parallel mails commit side by side, and the one that then has the lock goes on counting, with or
        without a state, and never backwards."""
        one, two = make_journal(), make_journal()
        one.open()
        put(two, 1)
        put(one, 2)
        assert [two.commit(), one.commit(), two.commit()] == [1, 2, 3]
        assert one.try_lock()
        put(one, 3)
        assert [one.commit(), one.commit(b"9", at_least=9), one.commit(b"10", at_least=5)] == [4, 9, 10]
        assert (numbers(two), two.exists(), two.newest) == ([1, 2, 3], True, 10)

    def test_discard(self, journal: Journal) -> None:
        """What was discarded, or was left when the lock was given back, is never committed."""
        put(journal, 1)
        journal.discard()
        put(journal, 2)
        journal.unlock()
        lock_when_free(journal)
        put(journal, 3)
        journal.commit()
        assert numbers(journal) == [3]


class TestLimits:
    def test_outbox(self, make_journal: MakeJournal) -> None:
        """Beyond `outbox_max_mib` nothing fits, and the error names the limit; smaller messages still fit."""
        journal = make_journal(outbox_max_mib=1)
        journal.put(message(1, bytes(600_000)))
        with pytest.raises(PublishError, match=r"exceed 1 MiB \(outbox_max_mib\).* save more often"):
            journal.put(message(2, bytes(600_000)))
        put(journal, 3)
        journal.commit()
        assert numbers(journal) == [1, 3]
        if journal.is_file:  # what waits counts, too
            with pytest.raises(PublishError, match="exceed 1 MiB"):
                journal.put(message(2, bytes(600_000)))
        journal.delivered(ids(journal))
        journal.put(message(4, bytes(1 << 20)))

    def test_too_large(self, journal: Journal) -> None:
        """What the database cannot hold is refused before anything is sent, and the limit is named."""
        journal.largest = min(journal.largest, 2_000_000)
        with pytest.raises(CollectorError, match=r"2,000,001 bytes is larger than .*\(2,000,000\)"):
            journal.put(message(1, bytes(2_000_001)))
        with pytest.raises(StateError, match=r"2,000,001 bytes is larger than .*\(2,000,000\)"):
            journal.commit(bytes(2_000_001))
        put(journal, 2)
        assert journal.commit(bytes(2_000_000)) == 1


class TestStates:
    def test_one_a_run(self, journal: Journal) -> None:
        """A save replaces the newest state of the same run, and only that one."""
        for run, pickle in [("a", b"1"), ("a", b"2"), ("b", b"3"), ("a", b"4"), ("", b"5"), ("", b"6")]:
            journal.commit(pickle, run=run)
        assert states(journal) == [b"6", b"5", b"4", b"3", b"2"]
        assert [generation.run for generation in journal.generations()][2:] == ["a", "b", "a"]

    def test_last_ten(self, journal: Journal) -> None:
        """The states of the last ten runs are kept, however often each has saved."""
        for run in range(15):
            for save in range(run % 3 + 1):
                journal.commit(b"%d %d" % (run, save), run=str(run))
        assert states(journal) == [b"%d %d" % (run, run % 3) for run in range(14, 4, -1)]

    def test_damaged(self, journal: Journal) -> None:
        """A state that is not what was saved is an error of its own; those before it can be read."""
        journal.commit(b"old")
        journal.commit(b"new")
        journal._execute("UPDATE n6_state SET pickle = ? WHERE name = ? AND number = 2", b"neW", journal._key)
        with pytest.raises(DamagedError, match="state 2 is damaged"):
            journal.pickle(2)
        assert journal.pickle(1) == b"old"
        with pytest.raises(StateError, match="there is no state 3"):
            journal.pickle(3)


class TestOutbox:
    def test_order(self, journal: Journal) -> None:
        """The oldest come first, those that were refused after all others, each with its reason."""
        put(journal, *range(1_100))
        journal.commit()
        every = ids(journal)
        journal.refuse({every[700]: "no queue for 700", every[3]: "no queue\0for 3"})
        assert numbers(journal) == [*(number for number in range(1_100) if number not in (3, 700)), 3, 700]
        reasons = [waiting.refused for waiting in journal.waiting()]
        assert reasons == [None] * 1_098 + ["no queue for 3", "no queue for 700"]
        assert journal.backlog()[:3] == (1_100, sum(len(f"body {number}") for number in range(1_100)), 2)

    def test_changed_meanwhile(self, journal: Journal, make_journal: MakeJournal) -> None:
        """While the messages are read, some are delivered, refused and added; none is left out."""
        other, seen, confirmed = make_journal(), list[int](), list[int]()
        put(journal, *range(1_200))
        journal.commit()
        for waiting in journal.waiting():
            number = int(waiting.message_id, 16)
            if number % 100 != 99 or number in seen:
                confirmed.append(waiting.id)
            elif number < 1_200:
                journal.refuse({waiting.id: "full"})
                journal.delivered(confirmed)
                put(other, 2_000 + number)
                other.commit()
            seen.append(number)
        refused = list(range(99, 1_200, 100))
        assert seen == [*range(1_200), *(2_000 + number for number in refused), *refused]
        journal.delivered(ids(journal))
        assert journal.backlog() == Backlog(0, 0, 0, None)

    def test_batches(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        """Large messages are read a few at a time, 4 MiB."""
        for number in range(7):
            journal.put(message(number, bytes(1_500_000)))
        journal.commit()
        sizes, select = [], journal._select

        def counting(*args: Any) -> list[Any]:
            rows = select(*args)
            sizes.append(len(rows))
            return rows

        monkeypatch.setattr(journal, "_select", counting)
        assert numbers(journal) == list(range(7))
        assert sizes == [7, 2, 5, 2, 3, 2, 1, 1, 0, 0]

    def test_prove_deletable(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        """Trying to delete what will be delivered changes nothing, and fails where it cannot be deleted."""
        journal.prove_deletable()
        put(journal, *range(600))
        journal.commit()
        journal.prove_deletable()
        assert numbers(journal) == list(range(600))
        monkeypatch.setattr(journal, "_delete", lambda ids: journal._execute("nonsense"))
        with pytest.raises(StateError, match="nothing was sent"):
            journal.prove_deletable()


class TestRuns:
    def test_records(self, make_journal: MakeJournal) -> None:
        """Records come out as they went in, oldest first; a later one of a run replaces the earlier, and the
        oldest beyond `keep_runs` go."""
        journal, start = make_journal(keep_runs=3), 1_700_000_000.123456
        journal.put_run(start, {"outcome": "in progress"})
        journal.put_run(start + 1, {"error": "🦆"})
        journal.put_run(start, {"outcome": "ok", "newest": None})
        records = [
            {"start": start, "outcome": "ok", "newest": None},
            {"start": start + 1, "error": "🦆"},
        ]
        assert (journal.runs(), journal.runs(1)) == (records, records[1:])
        for later in (5, 1, 4, 5):
            journal.put_run(start + later, {})
        assert [record["start"] - start for record in journal.runs()] == [1, 4, 5]


class TestLock:
    def test_second_run(self, journal: Journal, make_journal: MakeJournal) -> None:
        """A second run gets an error that names the first, and does nothing; it can still read."""
        second = make_journal()
        journal.lock()
        with pytest.raises(StateLockedError, match=r"run is in progress \(.*nothing was done") as caught:
            second.lock()
        assert str(journal.holder()) in str(caught.value)
        assert not second.try_lock()
        assert second.exists()
        journal.commit()
        journal.unlock()
        lock_when_free(second)
        assert second.commit() == 2

    def test_killed(self, make_journal: MakeJournal) -> None:
        """The lock of a dead process is free, without any cleaning up."""
        assert at_once(1, lambda: make_journal().lock()) == [0]
        lock_when_free(make_journal())

    def test_many_at_once(self, make_journal: MakeJournal) -> None:
        """Of fifty first runs at once one makes the tables and runs, and the others end with 75."""
        assert at_once(50, lambda: make_journal().lock()) == [0] + [75] * 49
