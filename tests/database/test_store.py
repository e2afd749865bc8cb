"""`DatabaseStore`, below the mixin, in both engines."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from n6_stateful import ConfigError, StateError, StateLockedError
from n6_stateful.state.database import DatabaseStore
from n6_stateful.state.store import BrokenStateError, Generation, StateStore
from tests.broker.private_node import until
from tests.database.conftest import MakeStore
from tests.database.proxy import Proxy
from tests.database.servers import end_sessions, execute
from tests.runtime.store_contract import Damage, StoreContract

# What is in the statement of a save, and in no other.
SAVE = b"UPDATE n6_state SET number = "


def dumped(state: Any) -> Callable[[Any], None]:
    return lambda file: pickle.dump(state, file)


def saved(store: DatabaseStore, *states: Any, keep_previous: bool = True) -> Generation:
    """Save one after the other."""
    number = max((each.number for each in store.generations()), default=0)
    for at, state in enumerate(states, 1):
        generation = store.write(dumped(state), number + at, keep_previous=keep_previous)
    return generation


def kept(store: DatabaseStore) -> list[Any]:
    """The states that are kept, the current one first."""
    return [store.read(pickle.load, each)[0] for each in store.generations()]


class TestContract(StoreContract):
    @pytest.fixture
    def make_store(self, url: str) -> Iterator[Callable[[], StateStore]]:
        made = []

        def make() -> StateStore:
            made.append(DatabaseStore(url, "a.b.C.pickle", "feed.C"))
            return made[-1]

        yield make
        for store in made:
            store.unlock()

    @pytest.fixture
    def damage(self, url: str) -> Damage:
        def damage(store: StateStore, generation: Generation) -> None:
            store.unlock()
            change_pickle(url, generation.number, "flipped")
            store.lock()

        return damage


class TestGenerations:
    def test_nothing_there(self, make_store: MakeStore) -> None:
        """Where there is not even a table, there is no state, no generation and no holder."""
        store = make_store()
        assert (store.generations(), store.set_aside_names(), store.holder()) == ([], [], None)
        with pytest.raises(FileNotFoundError):
            store.read(pickle.load)

    def test_nothing_saved(self, store: DatabaseStore) -> None:
        """A store that has just been made is empty and can be saved to."""
        store.prove_writable()
        assert store.generations() == []
        with pytest.raises(FileNotFoundError):
            store.read(pickle.load)

    def test_saved(self, store: DatabaseStore, make_store: MakeStore) -> None:
        """What was saved is what this store and any other one reads."""
        state = {"bytes": bytes(range(256)) * 100, "text": "zażółć 🦆"}
        generation = saved(store, state)
        for each in (store, make_store()):
            assert each.read(pickle.load) == (state, generation)
            assert each.generations() == [generation]
        assert (generation.number, len(generation.id)) == (1, 32)

    def test_ten_are_kept(self, store: DatabaseStore, make_store: MakeStore) -> None:
        """The last ten generations are kept, the newest first."""
        saved(store, *range(25))
        assert kept(store) == kept(make_store()) == list(range(24, 14, -1))
        assert [each.number for each in store.generations()] == list(range(25, 15, -1))

    def test_current_one_not_kept(self, store: DatabaseStore, make_store: MakeStore) -> None:
        """A save may take the current one's place; those before it stay."""
        saved(store, 1, keep_previous=False)
        saved(store, 2, 3)
        saved(store, 4, 5, keep_previous=False)
        assert kept(store) == kept(make_store()) == [5, 2, 1]
        assert [each.number for each in store.generations()] == [5, 2, 1]

    def test_overwritten_since(self, store: DatabaseStore, make_store: MakeStore) -> None:
        """To read a generation that was overwritten since it was listed is an error, and no other state."""
        other = make_store()
        saved(store, *range(10))
        (*_, oldest) = other.generations()
        saved(store, "new")
        with pytest.raises(StateError, match="number 1: a later save has just taken its place") as caught:
            other.read(pickle.load, oldest)
        assert not isinstance(caught.value, BrokenStateError)  # which would be set aside

    def test_names_are_apart(self, store: DatabaseStore, make_store: MakeStore) -> None:
        """A name in capitals, or one with another's wildcards in it, is another name."""
        others = [make_store(name) for name in ("A.B.C.PICKLE", "a_b%C.pickle", "ą.b.C.pickle")]
        for number, each in enumerate(others):
            each.lock()
            saved(each, number)
        saved(store, "mine")
        assert [kept(each) for each in (store, *others)] == [["mine"], [0], [1], [2]]

    def test_dump_that_fails(self, store: DatabaseStore) -> None:
        """What `dump` raises goes through, and nothing is saved."""
        saved(store, 1)

        def dump(file: Any) -> None:
            file.write(b"half a pickle")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.write(dump, 2)
        assert kept(store) == [1]


class TestBroken:
    @pytest.mark.parametrize("how", ["flipped", "cut", "empty", "another generation's", "no state"])
    def test_found_and_set_aside(
        self, store: DatabaseStore, url: str, make_store: MakeStore, how: str
    ) -> None:
        """A pickle that is not what was saved is found, and can be set aside for a person to look at."""
        saved(store, "old", "new")
        store.unlock()
        change_pickle(url, 2, how)
        store.lock()
        current, before = store.generations()
        with pytest.raises(BrokenStateError):
            store.read(pickle.load, current)
        where = store.set_aside(current)
        for each in (store, make_store()):
            assert each.generations() == [before]
            assert each.set_aside_names() == [where]
        assert saved(store, "newer").number == 2
        assert kept(store) == ["newer", "old"]

    def test_killed_while_it_sets_aside(self, store: DatabaseStore, url: str) -> None:
        """Where a row is missing, the next run puts an empty one."""
        saved(store, *range(12))
        store.unlock()
        execute(url, "DELETE FROM n6_state WHERE number IN (5, 6)")
        store.lock()
        saved(store, "a", "b", "c")
        assert kept(store) == ["c", "b", "a", 11, 10, 9, 8, 7, 6, 3]


def change_pickle(url: str, number: int, how: str) -> None:
    """Change what is in a row, as somebody could who may write to the table."""
    is_number = f"number = {number}"
    if url.startswith("postgresql"):
        contents = {
            "flipped": "set_byte(pickle, 20, 255 - get_byte(pickle, 20))",
            "cut": "substring(pickle for length(pickle) - 1)",
        }
    else:
        contents = {
            "flipped": "INSERT(pickle, 20, 1, CHAR(255 - ORD(SUBSTRING(pickle, 20, 1))))",
            "cut": "LEFT(pickle, LENGTH(pickle) - 1)",
        }
    contents["empty"] = "''"
    contents["no state"] = "'garbage'"
    contents["another generation's"] = "(SELECT pickle FROM (SELECT * FROM n6_state) AS t WHERE number = 1)"
    execute(url, f"UPDATE n6_state SET pickle = {contents[how]} WHERE {is_number}")  # noqa: S608 - constants


class TestLock:
    def test_second_one_is_told_who(self, store: DatabaseStore, make_store: MakeStore) -> None:
        """A second store is told host, pid and start of the first one, and that nothing was done."""
        with pytest.raises(StateLockedError, match="another run is in progress") as caught:
            make_store().lock()
        told = str(caught.value)
        assert f"process {os.getpid()} on {os.uname().nodename}, since 20" in told
        assert "nothing was done" in told
        assert make_store().holder() == store.holder()

    def test_unlocked(self, store: DatabaseStore, make_store: MakeStore) -> None:
        """A lock that was given back is there for others, as soon as the server has ended the session."""
        store.lock()
        store.unlock()
        other = make_store()
        until(lambda: other.holder() is None, "the session's end")
        other.lock()

    def test_ends_with_its_process(self, url: str, make_store: MakeStore) -> None:
        """The lock of a process that was killed is gone, nobody has to wait or to clean up."""
        code = (
            "import sys\nfrom n6_stateful.state.database import DatabaseStore\n"
            "DatabaseStore(sys.argv[1], 'a.b.C.pickle', 'feed.C').lock()\nprint('locked', flush=True)\n"
            "sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            other = make_store()
            with pytest.raises(StateLockedError, match=f"process {process.pid} on"):
                other.lock()
            process.kill()
        until(lambda: other.holder() is None, "the end of the session")
        other.lock()

    def test_names_and_databases_are_apart(
        self, store: DatabaseStore, make_store: MakeStore, administrator: str
    ) -> None:
        """A state of another name, or of the same name in another database, has a lock of its own."""
        make_store("other.pickle").lock()
        execute(administrator, "CREATE DATABASE n6_stateful_other")
        try:
            url = sa.make_url(administrator).set(database="n6_stateful_other")
            other = make_store(url=url.render_as_string(hide_password=False))
            other.lock()
            other.unlock()
        finally:
            execute(administrator, "DROP DATABASE n6_stateful_other")

    def test_first_runs_at_once(self, make_store: MakeStore) -> None:
        """Several collectors may make the table at once."""
        stores = [make_store(f"{number}.pickle") for number in range(8)]
        problems = []

        def lock(store: DatabaseStore) -> None:
            try:
                store.lock()
            except StateError as exc:
                problems.append(exc)

        threads = [threading.Thread(target=lock, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        for store in stores:
            saved(store, 1)


class TestFence:
    def test_overtaken(self, store: DatabaseStore, make_store: MakeStore, url: str) -> None:
        """A run that lost its session cannot save once another run has had the state."""
        saved(store, 1)
        end_sessions(url)
        other = make_store()
        until(lambda: other.holder() is None, "the end of the session")
        other.lock()
        holder = other.holder()
        assert holder
        with pytest.raises(StateError, match="has taken over the state") as caught:
            saved(store, "lost")
        assert holder in str(caught.value)
        assert "nothing was saved" in str(caught.value)
        saved(other, 2)
        assert kept(other) == [2, 1]
        with pytest.raises(StateError):
            saved(store, "lost")
        with pytest.raises(StateError):
            store.lock()
        assert kept(make_store()) == [2, 1]

    @pytest.mark.parametrize("count", [1, 3, 30])
    def test_overtaken_by_one_that_has_ended(
        self, store: DatabaseStore, make_store: MakeStore, url: str, count: int
    ) -> None:
        """Nor after the other run has saved any number of times and ended."""
        saved(store, *range(12))
        end_sessions(url)
        other = make_store()
        until(lambda: other.holder() is None, "the end of the session")
        other.lock()
        saved(other, *range(100, 100 + count))
        before = kept(other)
        other.unlock()
        with pytest.raises(StateError, match="has taken over the state"):
            saved(store, "lost")
        assert kept(make_store()) == before

    def test_without_the_lock(self, store: DatabaseStore, make_store: MakeStore, url: str) -> None:
        """What protects is the stamp: where a pooler or another node has given the lock twice, the run that
        came last saves, the other one does not."""
        saved(store, 1)
        execute(url, "UPDATE n6_state SET holder = 'another run'")
        with pytest.raises(StateError, match=r"another run \(another run\) has taken over"):
            saved(store, 2)
        assert kept(make_store()) == [1]

    def test_set_aside(self, store: DatabaseStore, url: str) -> None:
        """A run that was overtaken does not set anything aside either."""
        (broken,) = [saved(store, 1)]
        execute(url, "UPDATE n6_state SET holder = 'another run'")
        with pytest.raises(StateError, match="has taken over"):
            store.set_aside(broken)
        assert store.set_aside_names() == []


class TestLostConnection:
    def test_comes_back(self, store: DatabaseStore, make_store: MakeStore, url: str) -> None:
        """A run whose session was ended goes on with a new one, as long as nobody else has had the state."""
        saved(store, 1)
        end_sessions(url)
        saved(store, 2)
        with pytest.raises(StateLockedError):
            make_store().lock()
        assert kept(store) == [2, 1]

    def test_noticed_by_lock(self, store: DatabaseStore, make_store: MakeStore, url: str) -> None:
        """`lock` of a run that has it takes it again if the session was ended meanwhile."""
        store.lock()
        store._heard -= 60
        end_sessions(url)
        store.lock()
        with pytest.raises(StateLockedError):
            make_store().lock()

    @pytest.mark.parametrize("how", ["lose", "answer", "swallow", "deaf"])
    def test_during_a_save(self, make_store: MakeStore, url: str, how: str) -> None:
        """A save that was not answered has been done once in the end, whether or not it had reached the
        database before the connection was lost."""
        with Proxy(url) as proxy:
            store = make_store(url=proxy.url, timeout=2)
            store.lock()
            saved(store, 1, 2)
            proxy.at(SAVE, how)
            saved(store, 3)
            saved(store, 4)
            assert proxy.connections == 2
            with pytest.raises(StateLockedError):
                make_store().lock()
            assert kept(make_store()) == [4, 3, 2, 1]
            assert [each.number for each in make_store().generations()] == [4, 3, 2, 1]

    @pytest.mark.parametrize("how", ["lose", "answer"])
    def test_during_a_save_and_then_for_good(self, make_store: MakeStore, url: str, how: str) -> None:
        """If it does not come back, the error says that the outcome is not known; it is one or the other."""
        with Proxy(url) as proxy:
            store = make_store(url=proxy.url, timeout=1)
            store.lock()
            saved(store, 1)
            proxy.at(SAVE, how)
            proxy.takes_new_ones = False
            with pytest.raises(StateError, match="whether the state was saved is not known"):
                saved(store, 2)
        assert kept(make_store()) == ([1] if how == "lose" else [2, 1])

    def test_line_is_down(self, make_store: MakeStore, url: str) -> None:
        """A line that is down without a word does not hold a run up for ever, and then lets it go on."""
        with Proxy(url) as proxy:
            store = make_store(url=proxy.url, timeout=2)
            store.lock()
            proxy.go_down()
            threading.Timer(2.5, proxy.come_back).start()
            saved(store, 1)
        assert kept(make_store()) == [1]


class TestRoundTrips:
    def test_of_a_run(self, make_store: MakeStore, url: str) -> None:
        """Beside connecting, a run takes four round trips: lock, stamp, look, save."""
        store = make_store()
        store.lock()
        saved(store, "the state")
        store.unlock()
        with Proxy(url) as proxy:
            store = make_store(url=proxy.url)
            store._sql("SELECT 1")
            before = proxy.turns
            store.lock()
            store.prove_writable()
            (current,) = store.generations()
            store.read(pickle.load, current)
            store.lock()
            store.write(dumped("another one"), 2)
            store.generations()
            assert proxy.turns - before == 4
            assert before <= 10


class TestBadInput:
    @pytest.mark.parametrize(
        "wrong", ["nonsense", "postgresql", "oracle://u:secret@h/d", "postgresql://u:secret@h:x/d", "", "://"]
    )
    def test_wrong_url(self, wrong: str) -> None:
        """A URL that is none is an error of the configuration that shows how one looks, and no password."""
        with pytest.raises(
            ConfigError, match="must be postgresql://USER:PASSWORD@HOST/DATABASE or mysql"
        ) as caught:
            DatabaseStore(wrong, "name", "owner")
        assert "secret" not in str(caught.value)

    def test_long_name(self, make_store: MakeStore) -> None:
        """A name that the table does not hold is refused, rather than cut."""
        with pytest.raises(StateError, match="too long"):
            make_store("x" * 256).lock()

    def test_nobody_there(self, url: str) -> None:
        """A server that is not there is told with its place and what to look after."""
        away = (
            sa.make_url(url)
            .set(port=1, username="u", password="s3cret")
            .render_as_string(hide_password=False)
        )
        with pytest.raises(StateError, match=r"127\.0\.0\.1:1/.* see that the database runs") as caught:
            DatabaseStore(away, "name", "owner", timeout=2).lock()
        assert "s3cret" not in str(caught.value)

    def test_no_such_database(self, url: str) -> None:
        """So is a database that is not there."""
        away = sa.make_url(url).set(database="n6_no_such").render_as_string(hide_password=False)
        with pytest.raises(StateError, match="n6_no_such"):
            DatabaseStore(away, "name", "owner").lock()

    def test_unknown_option(self, url: str) -> None:
        """An option that the driver does not know is told."""
        wrong = sa.make_url(url).update_query_dict({"nonsense": "1"}).render_as_string(hide_password=False)
        with pytest.raises(StateError, match="nonsense"):
            DatabaseStore(wrong, "name", "owner").lock()

    def test_missing_certificate(self, url: str) -> None:
        """A file that the URL names and that is not there is not taken for a state that is not there."""
        name = "sslrootcert" if url.startswith("postgresql") else "ssl_ca"
        wrong = sa.make_url(url).update_query_dict({name: "/nonexistent.pem", "sslmode": "verify-full"})
        if name == "ssl_ca":
            wrong = wrong.difference_update_query(["sslmode"])
        store = DatabaseStore(wrong.render_as_string(hide_password=False), "name", "owner")
        with pytest.raises(StateError, match=r"SSL|see .state. url"):
            store.read(pickle.load)

    def test_newer_table(self, store: DatabaseStore, make_store: MakeStore, url: str) -> None:
        """Rows that a newer version has written are refused and left as they are."""
        saved(store, 1)
        store.unlock()
        execute(url, "UPDATE n6_state SET format = 2, holder = 'a newer one'")
        with pytest.raises(StateError, match=r"in format 2; this is feed\.C, format 1: upgrade"):
            make_store().lock()
        assert execute(url, "SELECT DISTINCT holder FROM n6_state") == [("a newer one",)]

    def test_another_collector(self, store: DatabaseStore, make_store: MakeStore) -> None:
        """Two collectors whose states have one name do not take each other's."""
        saved(store, 1)
        store.unlock()
        with pytest.raises(StateError, match=r"by feed\.C in format 1; this is feed\.D.*get_cache_file_name"):
            make_store(owner="feed.D").lock()
        store.lock()
        assert kept(store) == [1]

    def test_another_table(self, make_store: MakeStore, url: str) -> None:
        """A table of that name that is somebody else's is told as such."""
        execute(url, "CREATE TABLE n6_state (name VARCHAR(10))")
        with pytest.raises(StateError, match="another table is called n6_state"):
            make_store().lock()
