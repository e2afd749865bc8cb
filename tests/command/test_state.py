"""The `state` commands."""

from __future__ import annotations

import datetime
import io
import json
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import StateError
from tests.command.conftest import Done, Host, SampleCollector

NAME = "my-provider.lines.SampleCollector"
PY2 = Path(__file__).parents[1] / "core/py2_states/plain-2.pickle"


def state_of(host: Host) -> Any:
    """The state in the state file, which is never behind as long as nothing waits."""
    return pickle.loads((host.directory / "cache" / f"{NAME}.pickle").read_bytes())


def put(host: Host, state: object) -> None:
    file = host.directory / "put.pickle"
    file.write_bytes(pickle.dumps(state))
    assert host("state", "import", str(file), "--yes").code == 0


def edit(host: Host, monkeypatch: pytest.MonkeyPatch, code: str) -> Done:
    """`state edit` with an editor that does this to the `file`."""
    script = host.directory / "editor.py"
    script.write_text(f"import sys, pathlib\nfile = pathlib.Path(sys.argv[1])\n{code}\n")
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")
    monkeypatch.setattr("tempfile.tempdir", str(host.directory))
    return host("state", "edit")


class Answer(io.StringIO):
    """A terminal at which somebody types."""

    def isatty(self) -> bool:
        return True


class TestShow:
    """`state show`."""

    def test_state(self, host: Host) -> None:
        """It shows the state, where it is, and the generations that are kept, for people and as JSON."""
        host()
        host.collect("three")
        out = host("state", "show").out
        first, second, empty, state = out.splitlines()
        assert (first.split()[:2], second.split()[:2]) == (["number", "2"], ["number", "1"])
        assert (empty, state, f"{host.directory}/cache/{NAME}.sqlite" in first) == ("", "{'taken': 3}", True)
        about = json.loads(host("state", "show", "--json").out)
        assert (about["number"], about["state"], about["broken"]) == (2, {"taken": 3}, [])
        assert [each["number"] for each in about["generations"]] == [2, 1]
        assert datetime.datetime.fromisoformat(about["saved"]).tzinfo

    def test_none(self, host: Host) -> None:
        """Without a state it says so, and makes nothing."""
        assert "no state yet in " in host("state", "show").out
        assert host("state", "show", "--json").out == "null\n"
        assert host("state", "export", "x").code == 74
        assert not (host.directory / "cache").exists()

    def test_of_n6(self, host: Host) -> None:
        """A state file of n6's is shown as the one that the next run imports."""
        (host.directory / "cache").mkdir(mode=0o700)
        (host.directory / "cache" / f"{NAME}.pickle").write_bytes(pickle.dumps({"taken": 1}))
        out = host("state", "show").out
        assert out.splitlines() == [
            f"the next run imports {host.directory}/cache/{NAME}.pickle",
            "{'taken': 1}",
        ]

    def test_no_notation(self, host: Host) -> None:
        """As JSON it shows as text what JSON cannot express."""

        class Odd(SampleCollector):
            state_classes = (types.SimpleNamespace,)

        host.collector = Odd
        host.collector.__name__ = "SampleCollector"
        put(host, {"price": types.SimpleNamespace(eur=1), (1,): {2}})
        about = json.loads(host("state", "show", "--json").out)
        assert about["state"]["$dict"][0] == ["price", {"$repr": "namespace(eur=1)"}]
        assert "which JSON cannot express" in host("state", "export", "x.json").err

    def test_moved_aside(self, host: Host) -> None:
        """A corrupt journal that was moved aside is listed."""
        host()
        (host.directory / "cache" / f"{NAME}.sqlite").write_bytes(b"garbage" * 1000)
        host()
        assert (
            f"broken, moved aside: {host.directory}/cache/{NAME}.sqlite.broken-" in host("state", "show").out
        )


class TestChange:
    """`reset`, `restore`, `rewind` and `forget`: what they share, and what each does."""

    def test_reset(self, host: Host) -> None:
        """The default state is saved as a new generation; what changes is printed."""
        host()
        done = host("state", "reset", "--yes")
        assert done.out.splitlines()[:2] == ["-{'taken': 2}", "+{'taken': 0}"]
        assert (state_of(host), "saved the state 2 in " in done.out) == ({"taken": 0}, True)
        host()
        assert host.delivered == ["one", "two", "one", "two"]

    @pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 2), ("", 1, 2)])
    def test_asks(
        self, answer: str, code: int, left: int, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It asks at a terminal; without one it needs --yes."""
        host()
        assert "give --yes" in host("state", "reset").err
        monkeypatch.setattr("sys.stdin", Answer(answer))
        assert (host("state", "reset").code, state_of(host)) == (code, {"taken": left})

    def test_restore(self, host: Host) -> None:
        """It goes back to the run before, or to a number, as a new generation."""
        assert "no earlier generation is kept" in host("state", "restore", "--yes").err
        host()
        host.collect("three")
        assert (host("state", "restore", "--yes").code, state_of(host)) == (0, {"taken": 2})
        assert (host("state", "restore", "2", "--yes").code, state_of(host)) == (0, {"taken": 3})
        assert "no generation 99 is kept" in host("state", "restore", "99", "--yes").err

    @pytest.mark.parametrize(
        ("present", "to", "expected"),
        [
            ("2026-05-01 00:00:00", "2026-01-02 03:04:05", "2026-01-02 03:04:05"),
            (datetime.datetime(2026, 5, 1), "2026-01-02", datetime.datetime(2026, 1, 2)),
            (
                datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC),
                "2026-01-02",
                datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
            ),
            (1777593600.5, "2026-01-02", 1767312000.0),
            (1777593600, "17", 17),
        ],
    )
    def test_rewind_last_utc(self, present: object, to: str, expected: object, host: Host) -> None:
        """Of the guide's class, the time in the state is set, as the type that it has."""
        put(host, {"last_utc": present})
        assert host("state", "rewind", to, "--yes").code == 0
        assert state_of(host) == {"last_utc": expected}
        assert "not a time in ISO 8601" in host("state", "rewind", "yesterday", "--yes").err
        assert state_of(host) == {"last_utc": expected}

    def test_hooks(self, host: Host) -> None:
        """A class says itself how it goes back; one that does not gets an error that names the method."""
        host()
        for argv, hook in ((["rewind", "1"], "rewound(self, state, to)"), (["forget", "x"], "without_item(")):
            done = host("state", *argv, "--yes")
            assert (done.code, f"write {hook}" in done.err) == (1, True)

        class Able(SampleCollector):
            def rewound(self, state: Any, to: str) -> Any:
                return {"taken": int(to)}

            def without_item(self, state: Any, key: str) -> Any:
                if key != "two":
                    raise StateError(f"there is no {key}")
                return {"taken": 1}

        host.collector = Able
        host.collector.__name__ = "SampleCollector"
        assert (host("state", "rewind", "0", "--yes").code, state_of(host)) == (0, {"taken": 0})
        assert (host("state", "forget", "two", "--yes").code, state_of(host)) == (0, {"taken": 1})
        assert "nothing was changed" in host("state", "forget", "two", "--yes").out
        assert host("state", "forget", "nine", "--yes").code == 74

    @pytest.mark.parametrize("argv", [["reset", "--yes"], ["import", "kept.json", "--yes"]])
    def test_unusable_state(self, argv: list[str], host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """A state that stops every run is replaced by reset or import."""
        monkeypatch.chdir(host.directory)
        (host.directory / "cache").mkdir(mode=0o700)
        evil = b"cposix\nsystem\n(S'true'\ntR."
        (host.directory / "cache" / f"{NAME}.pickle").write_bytes(evil)
        Path("kept.json").write_text('{"taken": 1}')
        assert host().code == host("state", "show").code == 74
        done = host("state", *argv)
        assert (done.code, "-unusable: " in done.out) == (0, True), done.err
        assert (host().code, state_of(host)) == (0, {"taken": 2})

    @pytest.mark.parametrize(
        "argv",
        [["reset", "--yes"], ["restore", "--yes"], ["rewind", "0"], ["import", "x", "--yes"], ["edit"]],
    )
    def test_does_not_race(self, argv: list[str], host: Host) -> None:
        """What changes the state waits for no run; what looks says that one is in progress."""
        host()
        journal = host.journal
        journal.lock()
        done = host("state", *argv)
        assert (done.code, f"process {os.getpid()}" in done.err) == (75, True)
        looked = host("state", "show")
        assert (looked.code, f"a run is in progress (process {os.getpid()}" in looked.err) == (0, True)
        journal.unlock()


class TestExportAndImport:
    """`state export` and `state import`."""

    @pytest.mark.parametrize("name", ["state.pickle", "state.json"])
    @pytest.mark.parametrize("protocol", [0, 2, 5])
    def test_round_trip(self, name: str, protocol: int, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is exported can be imported; the file is for this user alone."""
        monkeypatch.setattr(SampleCollector, "pickle_protocol", protocol)
        state = {"ids": {1, 2}, "raw": b"\xff", "text": "ż"}
        put(host, state)
        file = host.directory / name
        assert host("state", "export", str(file)).out.startswith(f"exported the state to {file} (")
        assert file.stat().st_mode & 0o077 == 0
        host("state", "reset", "--yes")
        assert (host("state", "import", str(file), "--yes").code, state_of(host)) == (0, state)

    def test_waits(self, host: Host) -> None:
        """While messages of the state wait, it is not exported: elsewhere they would be missing."""
        host.down.touch()
        host()
        done = host("state", "export", str(host.directory / "x"))
        assert (done.code, "2 messages of this state wait in the outbox" in done.err) == (69, True)

    def test_from_n6(self, host: Host) -> None:
        """States of n6 are imported from their files, of Python 2 too, and from ours."""
        assert host("state", "import", str(PY2), "--yes").code == 0
        assert "text" in state_of(host)
        ours = host.directory / "ours.pickle"
        ours.write_bytes((host.directory / "cache" / f"{NAME}.pickle").read_bytes())
        host("state", "reset", "--yes")
        assert host("state", "import", str(ours), "--yes").code == 0
        assert "text" in state_of(host)

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("x.pickle", b"garbage"),
            ("x.pickle", b"cposix\nsystem\n(S'true'\ntR."),
            ("x.json", b"{"),
            ("x.json", b'{"$set": 1}'),
            ("x.json", b'["\xff"]'),
            ("x.json", b"[" * 100_000),
            ("missing.json", None),
        ],
    )
    def test_not_a_state(self, name: str, data: bytes | None, host: Host) -> None:
        """What cannot be imported is one clear error that names the file, and changes nothing."""
        host()
        if data is not None:
            (host.directory / name).write_bytes(data)
        done = host("state", "import", str(host.directory / name), "--yes")
        assert (done.code, name in done.err, done.err.count("\n")) == (74, True, 1)
        assert state_of(host) == {"taken": 2}


class TestEdit:
    """`state edit`."""

    def test_saves(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the editor leaves is saved as a new generation, types that JSON does not have included."""
        state = {"at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "ids": {1, 2}, (1, 2): "ż"}
        put(host, state)
        done = edit(host, monkeypatch, "file.write_text(file.read_text().replace('2026', '2027'))")
        assert (done.code, done.out.count("\n")) == (0, 3), done.err
        assert state_of(host) == {**state, "at": datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)}
        assert not list(host.directory.glob("n6-state-*"))

    def test_no_change(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """An edit that changes nothing saves nothing."""
        host()
        assert edit(host, monkeypatch, "").out == "nothing was changed\n"
        assert host.journal.generations()[0].number == 1

    @pytest.mark.parametrize("code", ["sys.exit(1)", "file.write_text('{\"$set\": 0}')", "file.unlink()"])
    def test_fails(self, code: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """An edit that fails changes nothing."""
        host()
        done = edit(host, monkeypatch, code)
        assert (done.code, done.err.count("\n"), state_of(host)) == (74, 1, {"taken": 2})

    def test_mistake(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """A text with a mistake is kept, and can be fixed and imported."""
        host()
        done = edit(host, monkeypatch, "file.write_text('{\"taken\": 1')")
        (kept,) = host.directory.glob("n6-state-*/state.json")
        assert f"`state import {kept}`" in done.err
        kept.write_text(kept.read_text() + "}")
        assert (host("state", "import", str(kept), "--yes").code, state_of(host)) == (0, {"taken": 1})


def test_schema(host: Host) -> None:
    """`state schema` prints the tables of an engine, and the rights to use them."""
    out = host("state", "schema", "postgresql").out
    assert ("CREATE TABLE IF NOT EXISTS n6_outbox" in out, "GRANT SELECT" in out) == (True, True)
    assert host("state", "schema").code == 78


def test_without_state(host: Host) -> None:
    """A collector without a state has no such commands."""

    class Stateless(SampleCollector):
        current_state = property()

    host.collector = Stateless
    done = host("state", "show")
    assert (done.code, "Stateless has no current_state()" in done.err) == (1, True)
