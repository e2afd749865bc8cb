"""The records of runs in the database: one history for all machines."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa

from n6_stateful.record.history import DatabaseHistory
from n6_stateful.state.database import DatabaseStore
from tests.database.conftest import MakeStore
from tests.database.servers import execute
from tests.record.conftest import Host
from tests.record.test_history import record

KEPT = 5


@pytest.fixture
def store(make_store: MakeStore) -> DatabaseStore:
    """A store whose table is there."""
    store = make_store()
    store.lock()
    return store


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine."""
    return Host(tmp_path)


class TestHistory:
    """What comes back."""

    def test_no_table(self, make_store: MakeStore) -> None:
        """Before the table is there nothing is kept, and nothing fails."""
        history = DatabaseHistory(make_store(), KEPT)
        history.put(record(1))
        assert history.records() == []

    def test_begin_and_end(self, store: DatabaseStore) -> None:
        """A run has one row, which changes when it ends."""
        history = DatabaseHistory(store, KEPT)
        history.put(record(1, None))
        assert history.records() == [record(1, None)]
        history.put(record(1, 69, error="żółw 'quoted'"))
        assert history.records() == [record(1, 69, error="żółw 'quoted'")]
        assert store.generations() == []
        assert store.set_aside_names() == []

    def test_clock(self, store: DatabaseStore) -> None:
        """What a clock that was ahead has left comes before all other runs, not after them."""
        history = DatabaseHistory(store, KEPT)
        ahead = record(1)._replace(start=time.time() + 86_400, end=None, exit_code=None)
        for each in (record(2), ahead, record(3)):
            history.put(each)
        assert history.records() == [ahead, record(2), record(3)]

    def test_kept(self, store: DatabaseStore) -> None:
        """Of many the last ones are kept, and the first of all as long as none has brought data."""
        history = DatabaseHistory(store, KEPT)
        for number in range(1, 4 * KEPT):
            history.put(record(number, None))
            history.put(record(number))
        last = [record(number) for number in range(3 * KEPT, 4 * KEPT)]
        assert history.records() == [record(1), *last]

    def test_last_new_data(self, store: DatabaseStore) -> None:
        """The last run that brought data is kept beside them."""
        history = DatabaseHistory(store, KEPT)
        for number in range(1, 4 * KEPT):
            history.put(record(number, None))
            history.put(record(number, 0, number < 4))
        assert history.records() == [
            record(3, 0, 1),
            *(record(number) for number in range(3 * KEPT, 4 * KEPT)),
        ]


class TestRuns:
    """Two machines."""

    def test_one_history(self, url: str, host: Host) -> None:
        """Each sees the runs of both, also one that was turned away, and one that was killed."""
        host.configure("state", url=url)
        assert host.collect("publish publish").returncode == 0
        process = host.collect_and_wait()
        assert host.command().returncode == 75
        assert "in progress" in host.command("runs").stdout
        process.kill()
        process.communicate(timeout=60)
        assert host.collect("publish").returncode == 0
        found = host.records
        assert [each.exit_code for each in found] == [0, None, 75, 0]
        assert found[0].messages == 2
        assert found[3].generation_before == found[0].generation_after
        assert not list(host.directory.glob("**/*.runs"))
        assert "in progress" not in host.command("status").stdout

    def test_not_recorded(self, administrator: str, url: str, host: Host) -> None:
        """Who may only look is told what there is; a run that may not write says so, and is not recorded."""
        user = f"n6_{uuid.uuid4().hex[:8]}"
        is_mariadb = url.startswith("mysql")
        account = f"'{user}'@'%%'" if is_mariadb else user
        execute(url, f"CREATE USER {account} {'IDENTIFIED BY' if is_mariadb else 'PASSWORD'} 'secret'")
        try:
            own = sa.make_url(url).set(username=user, password="secret")
            host.configure("state", url=url)
            assert host.collect("publish").returncode == 0
            execute(url, f"GRANT SELECT, INSERT, UPDATE ON n6_state TO {account}")
            host.configure("state", url=own.render_as_string(hide_password=False))
            assert host.collect("publish").returncode == 0
            execute(url, f"REVOKE UPDATE, INSERT ON n6_state FROM {account}")
            assert host.command("status").stdout.startswith("OK - last good run")
            done = host.collect("publish")
            assert (done.returncode, "UPDATE ON n6_state TO" in done.stderr) == (74, True)
            assert host.command("status", "--warning", "0").returncode == 1
        finally:
            execute(url, *([] if is_mariadb else [f"DROP OWNED BY {account}"]), f"DROP USER {account}")
