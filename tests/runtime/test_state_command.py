"""`state show`, `history`, `reset`, `restore`, `export`, `import`, `edit`."""

from __future__ import annotations

import datetime
import json
import os
import pickle
import pty
import subprocess
import sys
import types
from pathlib import Path

import pytest

from n6_stateful import typed_json
from tests.runtime.test_command import PROGRAM, Host, one_clear_error
from tests.runtime.test_command import host as host  # the fixture

NAME = "my-provider.lines.SampleCollector.pickle"


def state_of(host: Host) -> object:
    return pickle.loads((host.directory / "cache" / NAME).read_bytes())


def run_twice(host: Host) -> None:
    host.run()
    host.feed.write_text("one\ntwo\nthree\n")
    host.run()


def put(host: Host, state: object) -> None:
    """Have that state in force."""
    file = host.directory / "put.pickle"
    file.write_bytes(pickle.dumps(state))
    assert host.run("state", "import", str(file), "--yes").returncode == 0


def editor(host: Host, code: str) -> None:
    script = host.directory / "editor.py"
    script.write_text(f"import sys, pathlib\nfile = pathlib.Path(sys.argv[1])\n{code}\n")
    host.env["EDITOR"] = f"{sys.executable} {script}"


class TestShow:
    """`state show`."""

    def test_state(self, host: Host) -> None:
        """Show tells state generation time size and place."""
        host.run()
        done = host.run("state", "show")
        assert done.returncode == 0
        assert str(host.directory / "cache" / NAME) in done.stdout
        assert "{'taken': 2}" in done.stdout
        assert "  number 1  " in done.stdout
        about = json.loads(host.run("state", "show", "--json").stdout)
        assert about["state"] == {"taken": 2}
        assert about["generation"] in done.stdout
        assert datetime.datetime.fromisoformat(about["saved"]).tzinfo is not None

    def test_no_state(self, host: Host) -> None:
        """Show without a state says so."""
        done = host.run("state", "show")
        assert (done.returncode, "no state yet" in done.stdout) == (0, True)

    def test_no_output_no_classes(self, host: Host) -> None:
        """Show needs no output and no classes."""
        host.change_config(f"[output]\nurl = spool:{host.directory}/spool\n", "")
        (host.directory / "cache").mkdir(mode=0o700)
        gone = pickle.dumps({"a": datetime.date(2026, 1, 1)}, 0).replace(
            b"datetime\ndate", b"gone.away\nThing"
        )
        (host.directory / "cache" / NAME).write_bytes(gone)
        done = host.run("state", "show")
        assert done.returncode == 0, done.stderr
        assert "<gone.away.Thing: " in done.stdout

    def test_json(self, host: Host) -> None:
        """Show tells as JSON what it can and as text what it cannot."""
        put(host, {"day": datetime.date(2026, 1, 1), "ids": {1, 2}, 5: b"x"})
        found = json.loads(host.run("state", "show", "--json").stdout)
        assert typed_json.load(found["state"]) == {"day": datetime.date(2026, 1, 1), "ids": {1, 2}, 5: b"x"}
        put(host, {"price": [types.SimpleNamespace(eur=1)]})
        assert json.loads(host.run("state", "show", "--json").stdout)["state"] == {
            "price": [{"$repr": "namespace(eur=1)"}]
        }
        one_clear_error(
            host.run("state", "export", "x.json"), 74, "types.SimpleNamespace", "JSON has no form"
        )

    def test_python_2(self, host: Host) -> None:
        """Show reads a state of Python 2."""
        (host.directory / "cache").mkdir(mode=0o700)
        py2 = Path(__file__).with_name("py2_states")
        for name, told in (
            ("plain-2", "zażółć"),
            ("containers-0", "ż"),
            ("latin2-1", r"za\udcbf\udcf3\udcb3"),
        ):
            (host.directory / "cache" / NAME).write_bytes((py2 / f"{name}.pickle").read_bytes())
            assert told in host.run("state", "show").stdout

    def test_terminal(self, host: Host) -> None:
        """Show prints what the terminal has no letters for."""
        put(host, {"text": "zażółć"})
        host.env["PYTHONIOENCODING"] = "ascii"
        done = host.run("state", "show")
        assert (done.returncode, r"za\u017c" in done.stdout) == (0, True), done.stderr

    def test_broken(self, host: Host) -> None:
        """Show tells what is wrong with a broken file and leaves it."""
        host.run()
        (host.directory / "cache" / NAME).write_bytes(b"garbage")
        for argv in (["show"], ["show", "--json"], ["export", "exported"], ["edit"]):
            one_clear_error(host.run("state", *argv), 74, NAME, "is not a pickle")
        assert (host.directory / "cache" / NAME).read_bytes() == b"garbage"
        assert not (host.directory / "exported").exists()

    def test_makes_no_directory(self, host: Host) -> None:
        """What only looks makes no directory."""
        assert host.run("state", "show", "--json").stdout == "null\n"
        assert "no state yet" in host.run("state", "show").stdout
        one_clear_error(host.run("state", "export", "exported"), 74, "no state yet")
        assert not (host.directory / "cache").exists()

    def test_generations(self, host: Host) -> None:
        """History lists the generations and the broken files."""
        run_twice(host)
        done = host.run("state", "show")
        assert [line.split()[2] for line in done.stdout.splitlines()[:2]] == ["2", "1"]
        (host.directory / "cache" / NAME).write_bytes(b"garbage")
        done = host.run("state", "show")
        one_clear_error(done, 74, NAME, "is not a pickle")
        lines = done.stdout.splitlines()
        assert lines[0].startswith(f"cannot be used: {host.directory / 'cache' / NAME}: is not a pickle")
        assert "  number 1  " in lines[1]
        host.run()
        about = json.loads(host.run("state", "show", "--json").stdout)
        assert len(about["broken"]) == 1
        assert len(about["generations"]) == 2


class TestReset:
    """`state reset`."""

    def test_asks_or_yes(self, host: Host) -> None:
        """Reset asks or wants yes and keeps the old state."""
        host.run()
        one_clear_error(host.run("state", "reset"), 1, "--yes", "nothing was changed")
        assert state_of(host) == {"taken": 2}
        before = host.run("state", "show", "--json").stdout
        assert host.run("state", "reset", "--yes").returncode == 0
        assert state_of(host) == {"taken": 0}
        after = host.run("state", "show", "--json").stdout
        assert json.loads(before)["generation"] != json.loads(after)["generation"] != ""
        previous = host.directory / "cache" / f"{NAME}.previous"
        assert pickle.loads(previous.read_bytes()) == {"taken": 2}

    @pytest.mark.parametrize(
        ("answer", "code", "left"), [("y", 0, 0), ("yes", 0, 0), ("n", 1, 2), ("", 1, 2)]
    )
    def test_terminal(self, host: Host, answer: str, code: int, left: int) -> None:
        """At a terminal reset asks."""
        host.run()
        main, terminal = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, PROGRAM, "state", "reset", "--config", host.config],
            env=host.env,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.write(main, answer.encode() + b"\n")
        out, _ = process.communicate(timeout=60)
        os.close(main)
        os.close(terminal)
        assert b"[y/N]" in out
        assert process.returncode == code
        assert state_of(host) == {"taken": left}

    @pytest.mark.parametrize("command", [("reset",), ("import", "other.json")], ids=["reset", "import"])
    def test_keeps_the_good_one(self, command: tuple[str, ...], host: Host) -> None:
        """What takes the place of a broken file keeps that and the good state before it."""
        run_twice(host)
        (host.directory / "other.json").write_text('{"taken": 0}')
        good = json.loads(host.run("state", "show", "--json").stdout)["generations"][1]["generation"]
        (host.directory / "cache" / NAME).write_bytes(b"garbage")
        done = host.run("state", *command, "--yes")
        assert done.returncode == 0, done.stderr
        assert "is broken: it was moved to" in done.stdout
        assert state_of(host) == {"taken": 0}
        history = json.loads(host.run("state", "show", "--json").stdout)
        assert history["generations"][1]["generation"] == good
        assert [Path(each).read_bytes() for each in history["broken"]] == [b"garbage"]
        assert host.run("state", "restore", "--yes").returncode == 0
        assert state_of(host) == {"taken": 2}

    def test_new_ids(self, host: Host) -> None:
        """After a reset the same data comes as new messages."""
        host.run()
        host.run("state", "reset", "--yes")
        assert host.run().stdout.startswith("published 2 messages")
        assert "4 messages" in host.run("spool", "list").stdout


class TestRestore:
    """`state restore`."""

    def test_previous(self, host: Host) -> None:
        """Restore goes back to the state before as a new generation."""
        run_twice(host)
        assert host.run("state", "restore", "--yes").returncode == 0
        assert state_of(host) == {"taken": 2}
        assert "  number 3  " in host.run("state", "show").stdout

    def test_by_id(self, host: Host) -> None:
        """Restore takes a generation by its number, or by the beginning of its id."""
        run_twice(host)
        assert host.run("state", "restore", "1", "--yes").returncode == 0
        assert state_of(host) == {"taken": 2}
        wanted = host.run("state", "show").stdout.splitlines()[1][:8]
        assert host.run("state", "restore", wanted, "--yes").returncode == 0
        assert state_of(host) == {"taken": 3}
        for nothing in (wanted[:3], "zzzz", "99"):
            told = f"no generation has the id or number {nothing}"
            one_clear_error(host.run("state", "restore", nothing, "--yes"), 1, told)

    def test_none_or_broken(self, host: Host) -> None:
        """Restore without an earlier state or with a broken one changes nothing."""
        host.run()
        one_clear_error(host.run("state", "restore", "--yes"), 1, "no earlier generation is kept")
        host.feed.write_text("one\ntwo\nthree\n")
        host.run()
        (host.directory / "cache" / f"{NAME}.previous").write_bytes(b"garbage")
        one_clear_error(host.run("state", "restore", "--yes"), 74, ".previous", "is not a pickle")
        assert state_of(host) == {"taken": 3}

    @pytest.mark.parametrize("argv", [["reset", "--yes"], ["import", "kept.pickle", "--yes"]])
    def test_refused_state(self, host: Host, argv: list[str]) -> None:
        """A state that each run refuses is mended by reset or import."""
        host.run()
        assert host.run("state", "export", "kept.pickle").returncode == 0
        host.change_config("[output]", "broken_state = fail\n[output]")
        (host.directory / "cache" / NAME).write_bytes(b"garbage")
        for _ in range(2):
            one_clear_error(host.run(), 74, "state import", "state reset")
        assert host.run("state", *argv).returncode == 0
        assert state_of(host) == {"taken": 0 if argv[0] == "reset" else 2}
        assert host.run().returncode == 0


class TestExportAndImport:
    """`state export` and `state import`."""

    @pytest.mark.parametrize("name", ["state.pickle", "state.json"])
    def test_round_trip(self, host: Host, name: str) -> None:
        """What is exported can be imported."""
        host.run()
        file = host.directory / name
        assert host.run("state", "export", str(file)).returncode == 0
        assert file.stat().st_mode & 0o077 == 0
        host.run("state", "reset", "--yes")
        assert host.run("state", "import", str(file), "--yes").returncode == 0
        assert state_of(host) == {"taken": 2}

    @pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
    def test_old_protocol(self, host: Host, protocol: int) -> None:
        """What a collector with an old protocol exports comes back as it was."""
        program = host.directory / "old.py"
        text = PROGRAM.read_text().replace(
            'type = "stream"', f'type = "stream"\n    pickle_protocol = {protocol}'
        )
        program.write_text(text.replace('{"taken": 0}', '{"bytes": b"\\xff", "set": {b""}}'))

        def run(*argv: str) -> None:
            subprocess.run(
                [sys.executable, program, "state", *argv, "--config", host.config],
                env=host.env,
                cwd=host.directory,
                check=True,
                capture_output=True,
            )

        run("reset", "--yes")
        before = state_of(host)
        assert before == {"bytes": b"\xff", "set": {b""}}
        run("export", "exported")
        run("import", "exported", "--yes")
        assert state_of(host) == before

    @pytest.mark.parametrize("state", [{"taken": 1}, {"ids": {1}, "day": datetime.date(2026, 1, 1)}])
    def test_standard_streams(self, host: Host, state: object) -> None:
        """Standard output and input will do for a file."""
        put(host, state)
        argv = [sys.executable, str(PROGRAM), "--config", str(host.config), "state"]
        exported = subprocess.run(
            [*argv, "export", "-"], env=host.env, capture_output=True, check=True
        ).stdout
        assert pickle.loads(exported) == state
        host.run("state", "reset", "--yes")
        subprocess.run([*argv, "import", "-"], env=host.env, input=exported, capture_output=True, check=True)
        assert state_of(host) == state

    def test_no_such_file(self, host: Host) -> None:
        """Files that cannot be written or read are one clear error."""
        host.run()
        one_clear_error(host.run("state", "export", "no/such/directory"), 74, "no/such/directory")
        one_clear_error(host.run("state", "import", "no-such-file", "--yes"), 74, "no-such-file")

    def test_from_n6(self, host: Host) -> None:
        """States of n6 are imported from their files."""
        py2 = Path(__file__).with_name("py2_states") / "plain-2.pickle"
        assert host.run("state", "import", str(py2), "--yes").returncode == 0
        state = state_of(host)
        assert isinstance(state, dict)
        assert state["text"] == "zażółć"
        text = host.directory / "my-provider.txt"
        text.write_text("2015-10-21")
        assert host.run("state", "import", str(text), "--yes").returncode == 0
        assert state_of(host) == "2015-10-21"

    def test_file_of_ours(self, host: Host) -> None:
        """A file of ours is imported if it is what was saved."""
        put(host, {"taken": "good"})
        data = (host.directory / "cache" / NAME).read_bytes()
        copy = host.directory / "copy.pickle"
        copy.write_bytes(data)
        host.run("state", "reset", "--yes")
        assert host.run("state", "import", str(copy), "--yes").returncode == 0
        assert state_of(host) == {"taken": "good"}
        host.run("state", "reset", "--yes")
        for broken in (data.replace(b"good", b"bad!"), data[:-1], data[: data.index(b"\n#n6")], data + b"\n"):
            copy.write_bytes(broken)
            one_clear_error(
                host.run("state", "import", str(copy), "--yes"), 74, str(copy), "nothing was changed"
            )
        assert state_of(host) == {"taken": 0}

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("x.pickle", b"garbage"),
            ("x.pickle", b"cos\nsystem\n(Vtrue\ntR."),
            ("x.json", b"{"),
            ("x.json", b'{"$set": 1}'),
            ("x.json", b'{"$nothing": []}'),
            ("x.json", b'{"$bytes": "!"}'),
            ("x.json", b'{"$set": [[1]], "more": 1}'),
            ("x.json", b'{"$set": [[1]]}'),
            ("x.json", b'{"$datetime": "yesterday"}'),
            ("x.json", b'["\xff"]'),
            ("x.json", b"[" * 100_000),
        ],
    )
    def test_not_a_state(self, host: Host, name: str, data: bytes) -> None:
        """What cannot be imported is one clear error and changes nothing."""
        host.run()
        (host.directory / name).write_bytes(data)
        one_clear_error(
            host.run("state", "import", str(host.directory / name), "--yes"), 74, name.split(".")[1]
        )
        assert state_of(host) == {"taken": 2}

    def test_refused(self, host: Host) -> None:
        """What is refused in an import is told of the file that was given."""
        (host.directory / "evil.pickle").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
        done = host.run("state", "import", "evil.pickle", "--yes")
        one_clear_error(done, 74, "evil.pickle: ", "posix.system", "nothing was changed")
        assert NAME not in done.stderr


class TestEdit:
    """`state edit`."""

    def test_saves(self, host: Host) -> None:
        """Edit saves what the editor leaves as a new generation."""
        host.run()
        editor(host, "file.write_text(file.read_text().replace('2', '1'))")
        assert host.run("state", "edit").returncode == 0
        assert state_of(host) == {"taken": 1}
        assert "  number 2  " in host.run("state", "show").stdout

    def test_types(self, host: Host) -> None:
        """Edit works on types that JSON does not have."""
        state = {
            "at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
            "ids": {1, 2},
            "raw": b"\xff",
            (1, 2): "ż",
        }
        put(host, state)
        editor(host, "file.write_text(file.read_text().replace('2026', '2027'))")
        assert host.run("state", "edit").returncode == 0
        assert state_of(host) == {**state, "at": datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)}

    def test_no_state(self, host: Host) -> None:
        """Edit without a state begins with the default."""
        editor(host, "file.write_text(file.read_text().replace('0', '1'))")
        assert host.run("state", "edit").returncode == 0
        assert state_of(host) == {"taken": 1}

    def test_file_replaced(self, host: Host) -> None:
        """An editor may replace the file."""
        host.run()
        editor(host, "new = file.with_suffix('.new'); new.write_text('{\"taken\": 1}'); new.rename(file)")
        assert host.run("state", "edit").returncode == 0
        assert state_of(host) == {"taken": 1}

    def test_visual(self, host: Host) -> None:
        """Visual goes before editor."""
        host.run()
        editor(host, "file.write_text('{\"taken\": 1}')")
        host.env["VISUAL"], host.env["EDITOR"] = host.env["EDITOR"], "false"
        assert host.run("state", "edit").returncode == 0
        assert state_of(host) == {"taken": 1}

    @pytest.mark.parametrize("name", ["no-such-editor", 'vi "', "/"])
    def test_no_editor(self, host: Host, name: str) -> None:
        """An editor that cannot be started is one clear error."""
        host.run()
        host.env["EDITOR"] = name
        one_clear_error(host.run("state", "edit"), 74, name, "set EDITOR")
        assert state_of(host) == {"taken": 2}

    def test_no_json(self, host: Host) -> None:
        """A state that JSON cannot hold is not edited."""
        put(host, {"price": types.SimpleNamespace(eur=1)})
        editor(host, "file.write_text('{}')")
        one_clear_error(host.run("state", "edit"), 74, "types.SimpleNamespace")
        assert state_of(host) == {"price": types.SimpleNamespace(eur=1)}

    @pytest.mark.parametrize(
        "code",
        [
            "sys.exit(1)",
            "file.write_text('{')",
            "file.write_text('{\"$set\": 0}')",
            "file.write_bytes(bytes([255]))",
            "file.write_text('[2]')",
            "file.unlink()",
        ],
    )
    def test_fails(self, host: Host, code: str) -> None:
        """An edit that fails changes nothing."""
        host.run()
        editor(host, code)
        one_clear_error(host.run("state", "edit"), 74)
        assert state_of(host) == {"taken": 2}

    def test_mistake_is_kept(self, host: Host) -> None:
        """What was edited is kept when it is wrong and can be mended."""
        host.run()
        host.env["TMPDIR"] = str(host.directory)
        editor(host, "file.write_text('{\"taken\": 1')")
        done = host.run("state", "edit")
        (kept,) = host.directory.glob("n6-state-*/state.json")
        one_clear_error(done, 74, f"state import {kept}")
        kept.write_text(kept.read_text() + "}")
        assert host.run("state", "import", str(kept), "--yes").returncode == 0
        assert state_of(host) == {"taken": 1}
        for code in ("", "file.write_text('{}')", "file.unlink()", "sys.exit(1)"):
            editor(host, code)
            host.run("state", "edit")
        assert list(host.directory.glob("n6-state-*/*")) == [kept]

    def test_no_change(self, host: Host) -> None:
        """An edit that changes nothing saves nothing."""
        host.run()
        editor(host, "")
        assert "nothing was changed" in host.run("state", "edit").stdout
        assert "  number 1  " in host.run("state", "show").stdout

    @pytest.mark.parametrize(
        "action", [["reset", "--yes"], ["restore", "--yes"], ["import", "x.json", "--yes"], ["edit"]]
    )
    def test_does_not_race(self, host: Host, action: list[str]) -> None:
        """What changes the state does not race a run."""
        host.run()
        editor(host, "print('the editor is open', flush=True); sys.stdin.read()")
        holder = subprocess.Popen(
            [
                sys.executable,
                Path(__file__).with_name("sample_collector.py"),
                "state",
                "edit",
                "--config",
                host.config,
            ],
            env=host.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        one_clear_error(host.run("state", *action), 75, f"process {holder.pid}")
        for looking in (["show"], ["show", "--json"], ["export", "exported"]):
            looked = host.run("state", *looking)
            assert looked.returncode == 0
            assert f"a run is in progress (process {holder.pid}" in looked.stderr
        holder.communicate()
        assert state_of(host) == {"taken": 2}
