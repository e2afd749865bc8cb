"""The `state` commands."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import sys
from collections import Counter, deque
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from n6_stateful import StateError
from tests.command.conftest import Done, Host, SampleCollector, state_file

PY2 = Path(__file__).parents[1] / "core/py2_states/plain-2.pickle"
EVIL = b"cposix\nsystem\n(S'true'\ntR."
STATE = {
    "json": [None, True, 1.5, float("inf"), 10**30, "ż", "\udcff", {"a": [{}]}],
    "marks": [{"$set": 1}, {1: {None: ((), {(1, 2)})}}, b"\xff", datetime(2026, 1, 1)],
    "zones": [datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 10, 25, 2, fold=1)],
    "others": [Decimal("1.50"), date(2026, 1, 1), UUID(int=5), ip_address("::1"), frozenset({1})],
    "collections": [Counter("aab"), deque([1, (2,)], maxlen=3)],
}


def state_of(host: Host) -> Any:
    """The state in the state file, which is never behind as long as nothing waits."""
    return pickle.loads(state_file(host).read_bytes())


def put(host: Host, state: object) -> None:
    file = host.directory / "put.pickle"
    file.write_bytes(pickle.dumps(state))
    assert host("state", "import", str(file), "--yes").code == 0


def put_file(host: Host, data: bytes) -> Path:
    """A state file without a journal."""
    file = state_file(host)
    file.parent.mkdir(mode=0o700)
    file.write_bytes(data)
    return file


class TestShow:
    """`state show`."""

    def test_state(self, host: Host) -> None:
        """It shows the state, where it is, and what is kept or was moved aside, for people and as JSON."""
        host()
        host.collect("three")
        first, second, empty, state = host("state", "show").out.splitlines()
        assert (first.split()[:2], second.split()[:2]) == (["number", "2"], ["number", "1"])
        assert (empty, state, first.endswith(f"  {host.journal.where}")) == ("", "{'taken': 3}", True)
        about = json.loads(host("state", "show", "--json").out)
        assert (about["number"], about["state"], about["broken"]) == (2, {"taken": 3}, [])
        assert [generation["number"] for generation in about["generations"]] == [2, 1]
        assert datetime.fromisoformat(about["saved"]).tzinfo
        host.journal.path.write_bytes(b"garbage" * 1000)
        host()
        assert f"broken, moved aside: {host.journal.where}.broken-" in host("state", "show").out

    def test_none(self, host: Host) -> None:
        """Without a state it says so, and makes nothing; a state file of n6's is the one to be imported."""
        assert "no state in " in host("state", "show").out
        assert host("outbox", "list").out.startswith("0 messages (0 bytes) in ")
        assert host("state", "show", "--json").out == "null\n"
        host.fails(74, "there is no state yet", "state", "export", "x")
        assert not (host.directory / "cache").exists()
        file = put_file(host, pickle.dumps({"taken": 1}))
        assert host("state", "show").out == f"the next run imports {file}\n{{'taken': 1}}\n"


class TestChange:
    """`reset`, `restore`, `rewind` and `forget`: what they share, and what each does."""

    def test_reset(self, host: Host) -> None:
        """The default state is saved as a new generation; what changes is printed; all is collected again."""
        host()
        lines = host("state", "reset", "--yes").out.splitlines()
        assert lines == ["-{'taken': 2}", "+{'taken': 0}", f"saved the state 2 in {host.journal.where}"]
        host()
        assert host.delivered == ["one", "two", "one", "two"]

    def test_asks(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """It asks at a terminal; without one it needs --yes."""
        host()
        host.fails(1, "give --yes", "state", "reset")
        terminal = io.StringIO("n\ny\n")
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", terminal)
        assert (host("state", "reset").code, state_of(host)) == (1, {"taken": 2})
        assert (host("state", "reset").code, state_of(host)) == (0, {"taken": 0})

    def test_restore(self, host: Host) -> None:
        """It goes back to the run before, or to a number, as a new generation."""
        host.fails(1, "no earlier generation is kept", "state", "restore", "--yes")
        host()
        host.collect("three")
        assert (host("state", "restore", "--yes").code, state_of(host)) == (0, {"taken": 2})
        assert (host("state", "restore", "2", "--yes").code, state_of(host)) == (0, {"taken": 3})
        host.fails(1, "no generation 99 is kept", "state", "restore", "99", "--yes")

    def test_rewind_last_utc(self, host: Host) -> None:
        """Of the guide's class, the time in the state is set."""
        put(host, {"last_utc": "2026-05-01 00:00:00"})
        host("state", "rewind", "2026-01-02 03:04:05", "--yes")
        assert state_of(host) == {"last_utc": "2026-01-02 03:04:05"}
        host.fails(1, "not a time in ISO 8601", "state", "rewind", "yesterday", "--yes")

    def test_hooks(self, host: Host) -> None:
        """A class defines how it goes back; for others the error names the method to write."""
        host()
        host.fails(1, "write rewound(self, state, to)", "state", "rewind", "1", "--yes")
        host.fails(1, "no without_item()", "state", "forget", "x", "--yes")

        class Able(SampleCollector):
            def rewound(self, state: Any, to: str) -> Any:
                return {"taken": int(to)}

            def without_item(self, state: Any, key: str) -> Any:
                if key != "two":
                    raise StateError(f"there is no {key}")
                return {"taken": 1}

        host.collector = Able
        host()
        assert (host("state", "rewind", "0", "--yes").code, state_of(host)) == (0, {"taken": 0})
        assert (host("state", "forget", "two", "--yes").code, state_of(host)) == (0, {"taken": 1})
        assert host("state", "forget", "two", "--yes").out == "nothing was changed\n"
        host.fails(74, "there is no nine", "state", "forget", "nine", "--yes")

    @pytest.mark.parametrize("command", ["reset", "import"])
    def test_unusable_state(self, command: str, host: Host) -> None:
        """A state that stops every run is replaced by reset or import."""
        put_file(host, EVIL)
        kept = host.directory / "kept.json"
        kept.write_text('{"taken": 1}')
        assert (host().code, host("state", "show").code) == (74, 74)
        done = host("state", command, *([str(kept)] if command == "import" else []), "--yes")
        assert (done.code, "-unusable: " in done.out) == (0, True), done.err
        assert (host().code, state_of(host)) == (0, {"taken": 2})

    def test_does_not_race(self, host: Host) -> None:
        """What changes the state or the outbox ends with 75 while a run is in progress; `state show`
        mentions the run."""
        host()
        with host.locked():
            for action in ("reset", "restore", "rewind 0", "import x", "edit"):
                host.fails(75, f"process {os.getpid()}", "state", *action.split())
            for action in ("deliver", "drop --all"):
                host.fails(75, f"process {os.getpid()}", "outbox", *action.split())
            looked = host("state", "show")
            assert (looked.code, f"in progress (process {os.getpid()}" in looked.err) == (0, True)


class TestExportAndImport:
    """`state export` and `state import`."""

    @pytest.mark.parametrize("name", ["state.pickle", "state.json"])
    @pytest.mark.parametrize("protocol", [0, 5])
    def test_round_trip(self, name: str, protocol: int, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is exported can be imported, whatever its types are; the file is for this user alone."""
        monkeypatch.setattr(SampleCollector, "pickle_protocol", protocol)
        put(host, STATE)
        file = host.directory / name
        assert host("state", "export", str(file)).out.startswith(f"exported the state to {file} (")
        assert file.stat().st_mode & 0o077 == 0
        host("state", "reset", "--yes")
        assert host("state", "import", str(file), "--yes").code == 0
        state = pickle.loads(pickle.dumps(STATE, protocol))  # the old ones do not know `fold`
        assert (state_of(host), repr(state_of(host))) == (state, repr(state))

    def test_json(self, host: Host) -> None:
        """Types that JSON lacks are marked; a state with other types is exported as a pickle."""
        put(host, {"ids": {2, 1}, "at": (datetime(2026, 1, 1, tzinfo=UTC), b"\xff"), 3: Decimal("1.50")})
        state = json.loads(host("state", "show", "--json").out)["state"]
        ((_, ids), (_, at), (three, price)) = state["$dict"]
        assert (ids, three, [*price]) == ({"$set": [1, 2]}, 3, ["$pickle"])
        assert at == {"$tuple": [{"$datetime": "2026-01-01T00:00:00+00:00"}, {"$bytes": "/w=="}]}

    def test_waits(self, host: Host) -> None:
        """A state is not exported while its messages wait, since they would be lost elsewhere."""
        host.down.touch()
        host()
        host.fails(69, "2 messages of this state still in the outbox", "state", "export", "x")

    def test_from_n6(self, host: Host) -> None:
        """A state of n6 is imported from its file, of Python 2 even, and so is a state file of ours."""
        ours = host.directory / "ours.pickle"
        for file in (PY2, ours):
            assert (host("state", "import", str(file), "--yes").code, "text" in state_of(host)) == (0, True)
            ours.write_bytes(state_file(host).read_bytes())
            host("state", "reset", "--yes")

    JSON = (b"{", b'{"$set": 1}', b'{"$nothing": []}', b'{"$tuple": [], "more": 1}', b'["\xff"]')
    DEEP = (b"[" * 100_000, b'{"$pickle": "%s"}' % base64.b64encode(EVIL))

    @pytest.mark.parametrize("data", [b"garbage", EVIL, *JSON, *DEEP, None])
    def test_not_a_state(self, data: bytes | None, host: Host) -> None:
        """What cannot be imported is one clear error that names the file, and changes nothing."""
        host()
        file = host.directory / ("x.pickle" if data in (b"garbage", EVIL) else "x.json")
        if data is not None:
            file.write_bytes(data)
        host.fails(74, str(file), "state", "import", str(file), "--yes")
        assert state_of(host) == {"taken": 2}


class TestEdit:
    """`state edit`."""

    @pytest.fixture(autouse=True)
    def temporary(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is edited lies in the test's directory, and the editor is a program there."""
        monkeypatch.setattr("tempfile.tempdir", str(host.directory))
        monkeypatch.setenv("EDITOR", f"{sys.executable} {host.directory / 'editor.py'}")

    def edit(self, host: Host, code: str) -> Done:
        script = f"import sys, pathlib\nfile = pathlib.Path(sys.argv[1])\n{code}\n"
        (host.directory / "editor.py").write_text(script)
        return host("state", "edit")

    def test_saves(self, host: Host) -> None:
        """The edited state is saved, including types that JSON lacks; without a change nothing is saved."""
        state = {"at": datetime(2026, 1, 1, tzinfo=UTC), "ids": {1, 2}, (1, 2): "ż"}
        put(host, state)
        self.edit(host, "file.write_text(file.read_text().replace('2026', '2027'))")
        assert state_of(host) == {**state, "at": datetime(2027, 1, 1, tzinfo=UTC)}
        assert self.edit(host, "").out == "nothing was changed\n"
        assert not list(host.directory.glob("n6-state-*"))

    def test_fails(self, host: Host) -> None:
        """An edit that fails changes nothing; a text with a mistake is kept, to be fixed and imported."""
        host()
        for code in ("sys.exit(1)", "file.unlink()", "file.write_text('{\"taken\": 1')"):
            done = self.edit(host, code)
            assert (done.code, done.err.count("\n"), state_of(host)) == (74, 1, {"taken": 2})
        kept = Path(done.err.split()[-1].rstrip("`"))
        kept.write_text(kept.read_text() + "}")
        assert (host("state", "import", str(kept), "--yes").code, state_of(host)) == (0, {"taken": 1})


def test_schema(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """`state schema` prints the tables of an engine, and the rights to use them; a collector without a state
    has no such commands."""
    out = host("state", "schema", "postgresql").out
    assert ("CREATE TABLE IF NOT EXISTS n6_outbox" in out, "GRANT SELECT" in out) == (True, True)
    assert host("state", "schema").code == 78
    monkeypatch.setattr(SampleCollector, "current_state", property())
    host.fails(1, "has no current_state()", "state", "show")
