"""What is wrong with a database or its configuration ends a run with one error that says what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from n6_stateful import StateError
from tests.database.conftest import MakeStore
from tests.database.servers import Server, execute
from tests.database.site import Site
from tests.database.test_store import dumped, kept, saved


def url_of(url: str, user: str) -> str:
    return sa.make_url(url).set(username=user, password="s3cret").render_as_string(hide_password=False)


@pytest.fixture
def stranger(server: Server) -> Iterator[str]:
    """The URL of a user without any right on the table."""
    if server.url.startswith("postgresql"):
        execute(server.url, "CREATE ROLE stranger LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        drop = ["DROP OWNED BY stranger", "DROP ROLE stranger"]
    else:
        execute(server.url, "CREATE USER stranger@'%%' IDENTIFIED BY 's3cret'")
        execute(server.url, "GRANT CREATE TEMPORARY TABLES ON n6.* TO stranger@'%%'")
        drop = ["DROP USER stranger@'%%'"]
    yield url_of(server.url, "stranger")
    execute(server.url, *drop)


def grant(server: Server, rights: str) -> None:
    user = "stranger" if server.url.startswith("postgresql") else "stranger@'%%'"
    execute(server.url, f"GRANT {rights} ON n6_state TO {user}")


class TestRights:
    def test_may_not_make_the_table(self, make_store: MakeStore, stranger: str) -> None:
        """Where there is no table and the user may make none, the error names `state schema`."""
        if stranger.startswith("mysql"):
            pytest.skip("MariaDB does not tell such a user whether there is a table")
        with pytest.raises(
            StateError, match=r"there is no table: .*; have a user who may run what `state schema` prints$"
        ) as caught:
            make_store(url=stranger).lock()
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize("rights", ["SELECT", "SELECT, INSERT"])
    def test_may_not_write(self, server: Server, make_store: MakeStore, stranger: str, rights: str) -> None:
        """Before anything is published it is known that the user may not save, and the GRANT is told."""
        store = make_store(url=server.url)
        store.lock()
        saved(store, 1)
        store.unlock()
        grant(server, rights)
        with pytest.raises(StateError, match="GRANT SELECT, INSERT, UPDATE ON n6_state TO"):
            make_store(url=stranger).lock()
        assert kept(make_store(url=stranger)) == [1]
        grant(server, "SELECT, INSERT, UPDATE")
        store = make_store(url=stranger)
        store.lock()
        saved(store, 2)


class TestServer:
    def test_read_only(self, server: Server, make_store: MakeStore, stranger: str) -> None:
        """A database that takes no changes, as a standby, is told as such before anything is published."""
        store = make_store(url=server.url)
        store.lock()
        saved(store, 1)
        store.unlock()
        grant(server, "SELECT, INSERT, UPDATE")
        if server.url.startswith("postgresql"):
            execute(server.url, "ALTER ROLE stranger SET default_transaction_read_only = on")
        else:
            execute(server.url, "SET GLOBAL read_only = 1")
        try:
            with pytest.raises(StateError, match=r"it is a standby, or read-only: .* must name the primary"):
                make_store(url=stranger).lock()
        finally:
            if server.url.startswith("mysql"):
                execute(server.url, "SET GLOBAL read_only = 0")
        assert kept(make_store(url=stranger)) == [1]

    def test_standby(self, server: Server, make_store: MakeStore, engine: str) -> None:
        """A standby that follows its primary is told as such; what it has can be looked at."""
        if engine == "mariadb":
            pytest.skip("its replicas are read-only, as in the test before")
        store = make_store(url=server.url)
        store.lock()
        saved(store, 1)
        standby = Server(engine, server)
        try:
            store = make_store(url=standby.url)
            assert kept(store) == [1]
            with pytest.raises(StateError, match=r"it is a standby, or read-only: .* must name the primary"):
                store.lock()
        finally:
            standby.close()

    def test_full(self, server: Server, make_store: MakeStore, engine: str) -> None:
        """A database without room for the state says so, keeps the state, and goes on once there is room."""
        store = make_store(url=server.url)
        store.lock()
        saved(store, 1)
        # What the engine raises on a full disk, since to fill one takes a disk.
        if engine == "postgresql":
            full = [
                "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS "
                "$$BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END$$",
                "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON n6_state EXECUTE FUNCTION no_room()",
            ]
            room = ["DROP FUNCTION no_room() CASCADE"]
        else:
            full = [
                "CREATE TRIGGER full_disk BEFORE UPDATE ON n6_state FOR EACH ROW "
                "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table is full'"
            ]
            room = ["DROP TRIGGER full_disk"]
        execute(server.url, *full)
        with pytest.raises(StateError, match=r"No space left|table is full") as caught:
            saved(store, 2)
        assert "what it was" in str(caught.value)
        assert kept(store) == [1]
        execute(server.url, *room)
        saved(store, 2)
        assert kept(store) == [2, 1]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a server a small disk")
    def test_full_disk(self, make_store: MakeStore, engine: str) -> None:
        """On a disk that is full, which may end the server, a save fails; the state before it is there."""
        server = Server(engine, disk={"postgresql": "100m", "mariadb": "150m"}[engine])
        try:
            store = make_store(url=server.url, timeout=1)
            store.lock()
            saved(store, 1)
            with suppress(OSError), (server.directory / "filler").open("wb") as filler:
                while True:
                    filler.write(bytes(1 << 20))
            with pytest.raises(StateError, match=r"No space left on device|is full|was saved is not known"):
                saved(store, os.urandom(500_000), 2)
            store.unlock()
            (server.directory / "filler").unlink()
            server.restart()
            store = make_store(url=server.url)
            store.lock()
            assert kept(store) == [1]
            saved(store, 2)
            assert kept(store) == [2, 1]
        finally:
            server.close()

    def test_too_large(self, server: Server, make_store: MakeStore, engine: str) -> None:
        """A state that is larger than a statement may be is refused, with the limit and what raises it."""
        if engine == "postgresql":
            pytest.skip("its limit is 1 GB")
        store = make_store(url=server.url)
        store.lock()
        saved(store, 1)
        for state in (os.urandom(1_100_000), b"\0" * 600_000):  # the second one as it is sent
            with pytest.raises(
                StateError, match=r"larger than the database takes \(1,048,576 .*max_allowed_packet"
            ):
                store.write(dumped(state), 2)
        saved(store, b"x" * 1_040_000)
        store.unlock()
        execute(server.url, "SET GLOBAL max_allowed_packet = 1048576")
        try:
            store = make_store(url=server.url)
            store.lock()
            with pytest.raises(StateError, match="max_allowed_packet"):
                store.prove_writable()
        finally:
            execute(server.url, "SET GLOBAL max_allowed_packet = 2097152")

    def test_down(self, server: Server, tmp_path: Path) -> None:
        """A run that does not reach the database publishes nothing, and says so."""
        site = Site(tmp_path, server.url, timeout=1)
        site.grow()
        server.kill()
        attempt = site.begin()
        assert attempt.wait() == 74
        assert "nothing was published" in attempt.told
        assert "see that the database runs" in attempt.told
        assert "secret" not in attempt.told
        server.start()
        site.run()
        site.judge()


class TestEncryption:
    """TLS options in the URL pass through to the driver."""

    @staticmethod
    def url(server: Server, certificate: str) -> str:
        path = server.certificates / certificate
        options = {"sslmode": "verify-full", "sslrootcert": str(path)}
        if server.url.startswith("mysql"):
            options = {"ssl_ca": str(path)}
        url = sa.make_url(server.url).set(host="localhost").update_query_dict(options)
        return url.render_as_string(hide_password=False)

    def test_trusted(self, server: Server, make_store: MakeStore, engine: str) -> None:
        """A server whose certificate the authority has signed is talked to through TLS."""
        store = make_store(url=self.url(server, "ca.pem"))
        store.lock()
        saved(store, 1)
        if engine == "postgresql":
            query = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl"
        else:
            query = "SELECT variable_value > 0 FROM information_schema.global_status "
            query += "WHERE variable_name = 'SSL_FINISHED_ACCEPTS'"
        assert execute(server.url, query)[0][0] >= 1

    def test_stranger(self, server: Server, make_store: MakeStore) -> None:
        """Another server ends the run with one error before anything is published."""
        with pytest.raises(StateError, match="certificate verify failed") as caught:
            make_store(url=self.url(server, "wrong-ca.pem")).lock()
        assert "secret" not in str(caught.value)


def check_with(directory: Path, option: str, url: str) -> str:
    """What `check` says to a URL that is wrong, in the configuration or in a file."""
    if option == "url_file":
        (directory / "uri").write_text(f"{url}\n")
        url = str(directory / "uri")
    config = directory / "60_growing.conf"
    config.write_text(
        f"[growing]\nsource = provider\ncache_dir = {directory}/cache\nurl = {directory}/feed\n"
        "exchange = raw\nsave_every = 0\n"
        f"[output]\nurl = spool:{directory}/spool\n[state]\n{option} = {url}\n"
    )
    argv = [sys.executable, "-m", "tests.crash.growing_collector", "check", "--config", str(config)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    return done.stdout + done.stderr


class TestConfiguration:
    def test_url_file(self, url: str, tmp_path: Path) -> None:
        """The URL may be in a file of its own; one that is not there is an error of the configuration."""
        site = Site(tmp_path, url)
        site.grow()
        config = site.config(url)
        config.write_text(config.read_text().replace(f"url = {url}", f"url_file = {tmp_path}/secret"))
        attempt = site.begin()
        assert attempt.wait() == 78
        assert "[state] url_file: cannot be read" in attempt.told
        (tmp_path / "secret").write_text(f"{url}\n")
        site.run()
        assert execute(url, "SELECT count(*) FROM n6_state WHERE RIGHT(name, 7) = '.pickle'") == [(10,)]

    @pytest.mark.parametrize("userinfo", ["u:hunter@2secret", "u:p@ss/Wort7"])
    @pytest.mark.parametrize("option", ["url", "url_file"])
    def test_unescaped(self, tmp_path: Path, option: str, userinfo: str) -> None:
        """An @ in a password that is not escaped is told as such, and nothing of the password is shown."""
        told = check_with(tmp_path, option, f"postgresql://{userinfo}@127.0.0.1/d")
        assert "escaped: @ as %40" in told
        assert not any(part in told for part in ("hunter", "2secret", "ss/", "Wort7"))

    def test_empty_url_file(self, tmp_path: Path) -> None:
        """It is the file that is named."""
        assert "url_file: " in (told := check_with(tmp_path, "url_file", ""))
        assert "is empty" in told

    @pytest.mark.parametrize("module", ["sqlalchemy", "psycopg", "pymysql"])
    def test_missing_extra(self, tmp_path: Path, module: str) -> None:
        """Without SQLAlchemy or the driver, one line names the `pip install` that mends it."""
        url = "postgresql://u:s3cret@h/d" if module == "psycopg" else "mysql://u:s3cret@h/d"
        config = Site(tmp_path, url).config(url)
        code = (
            f"import sys\nsys.modules[{module!r}] = None\n"
            "from tests.crash.growing_collector import GrowingCollector\nGrowingCollector.run_script()"
        )
        argv = [sys.executable, "-c", code, "check", "--config", str(config)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 78
        (line,) = done.stderr.splitlines()
        assert re.search(r"-m pip install '.*\[sql\]'", line)
        assert "s3cret" not in line

    def test_not_imported_without_need(self, tmp_path: Path) -> None:
        """SQLAlchemy is imported only where `[state] url` is set."""
        config = Site(tmp_path, "").config("")
        code = (
            "import sys\nfrom n6_stateful.command import main\n"
            "from tests.crash.growing_collector import GrowingCollector\n"
            f"code = main(GrowingCollector, ['check', '--config', {str(config)!r}])\n"
            "print(code, 'sqlalchemy' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("0 False\n"), done.stdout + done.stderr
