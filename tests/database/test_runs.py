"""A collector whose state is in a database: its runs and commands, several at once, on several machines."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from n6_stateful import StateError, settings
from tests.broker.private_node import until
from tests.crash.growing_collector import GrowingCollector
from tests.database.servers import Server, end_sessions, execute
from tests.database.site import Site


@pytest.fixture
def site(tmp_path: Path, url: str) -> Site:
    """A collector whose state is in the test's own database."""
    return Site(tmp_path, url)


class TestOne:
    def test_runs(self, site: Site) -> None:
        """Each run goes on where the last one stopped; `check` and `state show` say what is there."""
        for count in (3, 0, 5):
            site.grow(count)
            site.run()
        site.judge()
        assert "state: ok, generation" in site.run("check")
        shown = json.loads(site.run("state", "show", "--json"))
        assert shown["state"] == {"taken": 8}
        assert [each["number"] for each in shown["generations"]] == [3, 2, 1]

    def test_state_commands(self, site: Site, tmp_path: Path) -> None:
        """`export`, `import`, `restore` and `reset` do in a table what they do in a file."""
        for _ in range(2):
            site.grow(4)
            site.run()
        site.run("state", "export", str(tmp_path / "state.json"))
        assert json.loads((tmp_path / "state.json").read_text()) == {"taken": 8}
        site.run("state", "restore", "--yes")
        assert json.loads(site.run("state", "show", "--json"))["state"] == {"taken": 4}
        site.run("state", "reset", "--yes")
        assert json.loads(site.run("state", "show", "--json"))["state"] == {"taken": 0}
        site.run("state", "import", str(tmp_path / "state.json"), "--yes")
        shown = json.loads(site.run("state", "show", "--json"))
        assert shown["state"] == {"taken": 8}
        assert [each["number"] for each in shown["generations"]] == [5, 4, 3, 2, 1]

    def test_edit(self, site: Site, tmp_path: Path) -> None:
        """`edit` makes another generation of what the editor leaves."""
        site.grow(4)
        site.run()
        script = tmp_path / "editor.py"
        script.write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).write_text('{\"taken\": 1}')\n")
        program = "from tests.database.attempts import HeldCollector; HeldCollector.run_script()"
        argv = [sys.executable, "-c", program, "state", "edit", "--config", str(site.config())]
        env = {**os.environ, "EDITOR": f"{sys.executable} {script}"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        shown = json.loads(site.run("state", "show", "--json"))
        assert shown["state"] == {"taken": 1}
        assert [each["number"] for each in shown["generations"]] == [2, 1]

    def test_state_classes(self, site: Site) -> None:
        """What a class admits by `state_classes` comes back from a table, and for others it is refused."""

        def load(admitted: tuple[str, ...], save: Any = None) -> Any:
            members = {"state_classes": admitted, "__module__": GrowingCollector.__module__}
            made = type("GrowingCollector", (GrowingCollector,), members)
            with settings.use(settings.Settings(config_paths=(str(site.config()),))):
                collector: Any = made()
                try:
                    state = collector.load_state()
                    if save is not None:
                        collector.save_state(save)
                finally:
                    collector.close_state()
            return state

        load(("logging.Filter",), {"filter": logging.Filter("x")})
        assert load(("logging.Filter",))["filter"].name == "x"
        with pytest.raises(StateError, match=r"logging\.Filter is not admitted.*state_classes"):
            load(())

    def test_broken_state(self, site: Site, url: str) -> None:
        """A broken generation is set aside, and the one before it used; `state show` tells of it."""
        for _ in range(2):
            site.grow(4)
            site.run()
        execute(url, "UPDATE n6_state SET pickle = 'garbage' WHERE number = 2")
        told = site.run()
        assert "the state is broken" in told
        assert "number 2" in told
        (broken,) = json.loads(site.run("state", "show", "--json"))["broken"]
        assert broken in told

    def test_schema(self, site: Site, url: str) -> None:
        """What `state schema` prints makes the table; then its user needs no right to make one."""
        execute(url, *site.run("state", "schema").split(";\n")[:1])
        site.grow()
        site.run()
        assert execute(url, "SELECT count(*) FROM n6_state WHERE RIGHT(name, 7) = '.pickle'") == [(10,)]
        site.judge()

    @pytest.mark.parametrize(("name", "blob"), [("postgresql", "BYTEA"), ("mysql", "LONGBLOB")])
    def test_schema_without_database(self, site: Site, name: str, blob: str) -> None:
        """It prints that of an engine, too, whatever the configuration says."""
        site._url = ""
        assert blob in site.run("state", "schema", name)
        attempt = site.begin("state", "schema")
        assert attempt.wait() == 78
        assert "the state is a file" in attempt.told

    def test_no_stranger_s_code(self, site: Site, url: str, tmp_path: Path) -> None:
        """A pickle that somebody has put into the table is data; where it is a program, it is refused."""
        site.grow()
        site.run()
        program = b"cposix\nsystem\n(S'touch " + str(tmp_path / "run").encode() + b"'\ntR."
        literal = f"X'{program.hex()}'" if url.startswith("mysql") else f"'\\x{program.hex()}'"
        execute(url, f"UPDATE n6_state SET pickle = {literal} WHERE number = 1")  # noqa: S608 - a constant
        before = len(site.lines)
        site.grow()
        attempt = site.begin()
        assert attempt.wait() == 74
        assert "system is not admitted" in attempt.told
        assert "nothing was published" in attempt.told
        assert not (tmp_path / "run").exists()
        del site.lines[before:]
        site.judge()


class TestMove:
    def test_there_and_back(self, site: Site, url: str, tmp_path: Path) -> None:
        """`export` and `import` carry a state from file to table and back, and nothing comes twice."""
        state = str(tmp_path / "state.pickle")

        def command(*argv: str, in_file: bool) -> None:
            site._url = "" if in_file else url
            site.run(*argv)

        for in_file in (True, False, True):
            site.grow()
            command(in_file=in_file)
            command("state", "export", state, in_file=in_file)
            command("state", "import", state, "--yes", in_file=not in_file)
        site.judge()

    def test_forgotten(self, site: Site, url: str) -> None:
        """A run that would begin anew in the table, although there is a state in the file, ends before it
        publishes anything; and so does `check`."""
        site._url = ""
        site.grow()
        site.run()
        site._url = url
        for command in ([], ["check"]):
            attempt = site.begin(*command)
            assert attempt.wait() == 74
            assert "take it over with `state import" in attempt.told
        (path,) = re.findall(r"`state import ([^`]+)`", attempt.told)
        site.run("state", "import", path, "--yes")
        site.run()
        site.judge()


class TestTwo:
    def test_second_run(self, site: Site) -> None:
        """A second run, and a command that would change the state, end with 75 at once, naming the first."""
        site.grow()
        first = site.begin_held()
        for command in ([], ["state", "reset", "--yes"], ["check"]):
            second = site.begin(*command)
            assert second.wait() == 75
            assert (
                f"another run is in progress (process {first.pid} on {os.uname().nodename}, since"
                in second.told
            )
        assert "a run is in progress" in site.run("state", "show")
        site.hold.unlink()
        assert first.wait() == 0
        site.judge()

    def test_frozen_and_overtaken(self, site: Site, url: str) -> None:
        """A run stopped before its save, overtaken by another one and thawed, does not save."""
        site.grow()
        site.run()
        site.grow()
        frozen = site.begin_frozen()
        assert site.begin().wait() == 75  # frozen is not dead
        end_sessions(url)
        site.run()
        frozen.send_signal(signal.SIGCONT)
        assert frozen.wait() == 74
        assert "has taken over the state since this one was cut off; nothing was saved" in frozen.told
        site.run()
        site.judge()
        assert json.loads(site.run("state", "show", "--json"))["state"] == {"taken": len(site.lines)}

    def test_frozen_while_the_other_one_runs(self, site: Site, url: str) -> None:
        """Nor does it save while the other run is in progress, which then does."""
        site.grow()
        frozen = site.begin_frozen()
        end_sessions(url)
        site.grow()
        other = site.begin_held()
        frozen.send_signal(signal.SIGCONT)
        until(lambda: frozen.is_over, "the thawed run")
        assert frozen.wait() == 74
        assert f"process {other.pid} on" in frozen.told
        site.hold.unlink()
        assert other.wait() == 0
        site.run()
        site.judge()

    def test_frozen_and_not_overtaken(self, site: Site, url: str) -> None:
        """Where nobody has had the state meanwhile, a run that lost its session saves with a new one."""
        site.grow()
        frozen = site.begin_frozen()
        end_sessions(url)
        frozen.send_signal(signal.SIGCONT)
        assert frozen.wait() == 0, frozen.told
        assert json.loads(site.run("state", "show", "--json"))["state"] == {"taken": len(site.lines)}
        site.judge()


class TestMany:
    @pytest.fixture
    def machines(self) -> Iterator[list[tuple[str | None, str]]]:
        """The machines: each is a network namespace, and the address that the databases' machine has there.
        Without the right to make them, it is this machine alone."""
        if os.geteuid() or not shutil.which("ip"):
            yield [(None, "127.0.0.1")]
            return
        made = []
        try:
            for number in range(4):
                name, net = f"n6s{os.getpid()}-{number}", f"10.213.{number}"
                ip("netns", "add", name)
                made.append((name, f"{net}.1"))
                ip("link", "add", f"n6s{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
                ip("addr", "add", f"{net}.1/24", "dev", f"n6s{number}")
                ip("link", "set", f"n6s{number}", "up")
                ip("-n", name, "addr", "add", f"{net}.2/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
                ip("-n", name, "link", "set", "lo", "up")
            yield list(made)
        finally:
            for name, _ in made:
                ip("netns", "del", name)

    def test_hundred_at_once(
        self, tmp_path: Path, server: Server, machines: list[tuple[str | None, str]]
    ) -> None:
        """Of a hundred runs on four machines one publishes; 99 end with 75 and name it."""
        site = Site(tmp_path, server.url)
        site.grow()
        site.hold.touch()
        runs = []
        for at in range(100):
            namespace, address = machines[at % len(machines)]
            url = sa.make_url(server.url).set(host=address).render_as_string(hide_password=False)
            runs.append(site.begin(url=url, namespace=namespace))
        until(lambda: sum(each.is_over for each in runs) >= 99, "the end of 99 runs", 120)
        (first,) = [each for each in runs if not each.is_over]
        told = Counter(each.wait() for each in runs if each is not first)
        assert told == {75: 99}, [each.told for each in runs if each is not first and each.wait() != 75]
        named = f"another run is in progress (process {first.pid} on {os.uname().nodename}, since"
        assert [each.told for each in runs if each is not first and named not in each.told] == []
        site.hold.unlink()
        assert first.wait() == 0, first.told
        site.judge()


def ip(*argv: str) -> None:
    """`ip`."""
    subprocess.run(["ip", *argv], check=True, capture_output=True, text=True)
