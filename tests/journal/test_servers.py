"""The journal in PostgreSQL and MariaDB: lost sessions, many runs at once, rights, limits and URLs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from n6_stateful.errors import CollectorError, ConfigError, StateError
from n6_stateful.journal import Journal, configured_journal, schema
from tests.journal.conftest import MakeJournal
from tests.journal.helpers import ids, lock_when_free, message, numbers, put, states
from tests.journal.servers import ENGINES, SESSIONS, Proxy, end_sessions, execute


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def new_database(engine: str, make_database: Callable[[str], str]) -> str:
    """The URL of a database of the test's own, without any table."""
    return make_database(engine)


def with_login(url: str, login: str) -> str:
    return f"{url.partition('//')[0]}//{login}@{url.partition('@')[2]}"


class TestSession:
    @pytest.mark.parametrize("saves", [0, 30])
    def test_lost(self, new_database: str, make_journal: MakeJournal, saves: int) -> None:
        """A run whose session has ended saves and publishes nothing more, whatever others have done since."""
        journal, other = make_journal(url=new_database), make_journal(url=new_database)
        journal.lock()
        journal.commit(b"mine")
        put(journal, 1)
        end_sessions(new_database)
        lock_when_free(other)
        for save in range(saves):
            put(other, 100 + save)
            other.commit(b"theirs %d" % save)
        with pytest.raises(StateError, match="nothing was saved or published") as caught:
            journal.commit(b"late")
        with pytest.raises(StateError) as again:
            journal.commit(b"late")
        assert again.value is caught.value
        with pytest.raises(StateError):
            journal.backlog()  # without the lock, it delivers nothing either
        assert numbers(other) == list(range(100, 100 + saves))
        assert states(other)[0] == (b"theirs %d" % (saves - 1) if saves else b"mine")

    def test_lost_without_the_lock(self, new_database: str, make_journal: MakeJournal) -> None:
        """A mail's commit fails when the session has ended, and can be tried again."""
        journal = make_journal(url=new_database)
        journal.open()
        put(journal, 1)
        end_sessions(new_database)
        with pytest.raises(StateError, match="nothing was saved or published"):
            journal.commit()
        assert (journal.commit(), numbers(journal)) == (1, [1])

    @pytest.mark.parametrize("how", ["lose", "answer"])
    def test_lost_in_a_commit(self, url: str, make_journal: MakeJournal, how: str) -> None:
        """A COMMIT without an answer is an error that says so; all of it has happened or nothing."""
        reader = make_journal()
        reader.open()
        with Proxy(url, b"COMMIT", how) as proxy:
            journal = make_journal(url=proxy.url)
            journal.lock()
            put(journal, 1, 2)
            for _ in range(2):
                with pytest.raises(
                    StateError, match="either all of it was saved or nothing; the next run finds out"
                ):
                    journal.commit(b"state")
        lock_when_free(reader)
        assert (numbers(reader), states(reader)) == (([1, 2], [b"state"]) if how == "answer" else ([], []))

    def test_silent_server(self, url: str, make_journal: MakeJournal) -> None:
        """A server that does not answer for `timeout` seconds ends the commit, and nothing was saved."""
        make_journal().open()
        with Proxy(url, b"UPDATE n6_collector", "deaf") as proxy:
            journal = make_journal(url=proxy.url, timeout=1)
            journal.lock()
            put(journal, 1)
            with pytest.raises(StateError, match="nothing was saved or published"):
                journal.commit(b"state")
        assert numbers(make_journal()) == []

    def test_idle(self, new_database: str, make_journal: MakeJournal) -> None:
        """While a collector collects, and reads what waits, its session is in no transaction."""
        journal = make_journal(url=new_database)
        journal.lock()
        put(journal, *range(600))
        journal.commit(b"state")
        journal.prove_deletable()
        next(journal.waiting())
        journal.runs(), journal.generations(), journal.backlog()
        if new_database.startswith("postgresql"):
            select = SESSIONS["postgresql"].replace("SELECT pid", "SELECT state")
            assert execute(new_database, select) == [("idle",)]
        else:
            select = "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx"
            sessions = execute(new_database, SESSIONS["mariadb"])
            assert not {*execute(new_database, select)} & {*sessions}


class TestManyCollectors:
    def test_at_once(self, new_database: str, make_journal: MakeJournal) -> None:
        """Collectors may make the tables, commit and deliver at the same time, each its own."""
        journals = [make_journal(f"C{number}", url=new_database) for number in range(8)]

        def run(journal: Journal) -> None:
            journal.lock()
            for number in range(10):
                put(journal, *range(number * 10, number * 10 + 10))
                journal.commit(b"%d" % number)
                journal.delivered(ids(journal)[:5])

        threads = [threading.Thread(target=run, args=(journal,)) for journal in journals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for journal in journals:
            assert (numbers(journal), states(journal)[0]) == (list(range(50, 100)), b"9")


class TestRights:
    @pytest.fixture
    def stranger(self, engine: str, new_database: str) -> Iterator[str]:
        """The URL of a user who may connect and nothing else."""
        if engine == "postgresql":
            execute(new_database, "CREATE ROLE n6_stranger LOGIN PASSWORD 's3cret'")
            execute(new_database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        else:
            execute(new_database, "CREATE USER n6_stranger@'%' IDENTIFIED BY 's3cret'")
            database = new_database.rpartition("/")[2]
            execute(new_database, f"GRANT CREATE TEMPORARY TABLES ON {database}.* TO n6_stranger@'%'")
        yield with_login(new_database, "n6_stranger:s3cret")
        end_sessions(new_database)
        if engine == "postgresql":
            execute(new_database, "DROP OWNED BY n6_stranger")
        execute(new_database, "DROP USER n6_stranger")

    def test_schema(self, engine: str, new_database: str, stranger: str, make_journal: MakeJournal) -> None:
        """If the user may not create tables, the error names `state schema`, which prints what is needed."""
        journal, later = make_journal(url=stranger), make_journal(url=stranger)
        with pytest.raises(StateError, match=r"denied.*the user's rights \(`state schema`\)") as caught:
            journal.lock()
        assert "s3cret" not in str(caught.value)
        journal.unlock()
        printed = schema("postgresql" if engine == "postgresql" else "mysql")
        user = "n6_stranger" if engine == "postgresql" else "n6_stranger@'%'"
        tables = ("n6_collector", "n6_state", "n6_outbox", "n6_run")
        grants = [f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {user}" for table in tables]
        execute(new_database, *printed.partition("--")[0].split(";")[:-1], *grants)
        lock_when_free(later)
        put(later, 1)
        later.commit(b"state")
        later.put_run(1.0, {})
        later.refuse(dict.fromkeys(ids(later), "why"))
        later.prove_deletable()
        later.delivered(ids(later))
        assert (numbers(later), states(later)) == ([], [b"state"])


class TestLimits:
    def test_long_name(self, make_journal: MakeJournal) -> None:
        """A name that is too long for the tables is refused, not truncated."""
        with pytest.raises(StateError, match="too long"):
            make_journal("x" * 250).lock()

    @pytest.mark.parametrize("engine", ["mariadb"])
    def test_packet(self, make_journal: MakeJournal) -> None:
        """The largest message and state that are accepted arrive, even if each byte is escaped."""
        journal = make_journal()
        journal.lock()
        largest = journal.largest
        for number, byte in enumerate((b"\0", b"x")):
            journal.put(message(number, byte * (largest - 2)))
        journal.commit(b"\0" * largest)
        assert [waiting.size for waiting in journal.waiting()] == [largest - 2] * 2
        assert states(journal) == [b"\0" * largest]
        with pytest.raises(CollectorError, match="larger than half of its max_allowed_packet"):
            journal.put(message(2, bytes(largest)))


class TestUrl:
    def test_file(self, url: str, make_journal: MakeJournal, tmp_path: Path) -> None:
        """The URL may be in a file of its own, which must be there."""
        (tmp_path / "secret").write_text(f"{url}\n")
        journal = make_journal(url="", url_file=str(tmp_path / "secret"))
        journal.lock()
        assert not journal.is_file
        assert make_journal().exists()
        with pytest.raises(ConfigError, match="url_file: cannot be read"):
            make_journal(url="", url_file=str(tmp_path / "missing"))

    @pytest.mark.parametrize(
        "wrong",
        [
            *("nonsense", "postgresql", "oracle://u:secret@h/d", "postgresql://u:secret@h:x/d", "://"),
            *("postgresql://u:secret@h/", "mysql://u:hun@secret@h/d", "postgresql://u:p@ss/secret@h/d"),
            *("mysql://u:secret?x@h/d", "mysql://u:12#secret@h/d", "mysql://u:12/secret@h/d"),
        ],
    )
    def test_wrong(self, tmp_path: Path, wrong: str) -> None:
        """An invalid URL is an error that shows the right form, and no part of the password."""
        (tmp_path / "file").write_text(wrong)
        for options in ({"url": wrong}, {"url_file": str(tmp_path / "file")}):
            with pytest.raises(ConfigError, match="must be postgresql://USER:PASSWORD@HOST/DATA") as caught:
                configured_journal(options, tmp_path / "C.sqlite")
            assert "secret" not in str(caught.value)
            assert "hun" not in str(caught.value)

    @pytest.mark.parametrize("host", ["h", "[::1]"])
    def test_escaped(self, tmp_path: Path, engine: str, host: str) -> None:
        """The login is never shown, and escaped characters reach the driver unescaped."""
        url = f"{engine}://me%40:p%2Fw%40@{host}:1/d%2B?x=%2F"
        journal = configured_journal({"url": url}, tmp_path / "C.sqlite")
        assert journal.where == f"{engine} {host}:1/d+ C"
        login = {"host": host.strip("[]"), "port": 1, "user": "me@", "password": "p/w@", "x": "/"}
        login["dbname" if engine == "postgresql" else "database"] = "d+"
        assert login.items() <= journal._options().items()  # type: ignore[attr-defined]

    def test_nobody_there(self, url: str, make_journal: MakeJournal) -> None:
        """An unreachable server is named, with what to check."""
        away = with_login(url, "u:s3cret").rpartition(":")[0] + ":1/d"
        with pytest.raises(StateError, match=r":1/d .*refused.*make sure that it runs") as caught:
            make_journal(url=away).lock()
        assert "s3cret" not in str(caught.value)

    def test_driver_options(self, url: str, engine: str, make_journal: MakeJournal) -> None:
        """What follows the ? goes to the driver, TLS among it; an option that it does not know is named."""
        tls = "sslmode=verify-full&sslrootcert" if engine == "postgresql" else "ssl_ca"
        with pytest.raises(StateError, match=r"No such file|does not exist|not support SSL"):
            make_journal(url=f"{url}?{tls}=/nonexistent.pem").lock()
        with pytest.raises(ConfigError, match="nonsense"):
            make_journal(url=f"{url}?nonsense=1").lock()
        setting = "program_name=n6&local_infile=true"
        if engine == "postgresql":
            setting = "options=-c%20lock_timeout%3D7777"
        journal = make_journal(url=f"{url}?{setting}&connect_timeout=3")
        journal.lock()
        if engine == "postgresql":
            show = "SELECT current_setting('lock_timeout'), current_setting('synchronous_commit')"
            assert journal._execute(show).fetchone() == ("7777ms", "on")

    def test_missing_extra(self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the driver, one line names the extra."""
        for driver in ("psycopg", "pymysql"):
            monkeypatch.setitem(sys.modules, driver, None)
        with pytest.raises(ConfigError, match=r"\[journal\] url needs .* \S+\[sql\]$"):
            configured_journal({"url": url}, tmp_path / "C.sqlite")
