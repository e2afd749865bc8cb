"""`runs`: what people see of the records."""

from __future__ import annotations

import json
import os
import pty
import re
import time
from pathlib import Path

import pytest

from n6_stateful.command.runs import HEADER, as_line
from n6_stateful.record.history import FileHistory
from tests.record.conftest import NAME, Host
from tests.record.test_history import record

DAY = 86_400


@pytest.fixture
def ran(host: Host) -> Host:
    """A machine on which a good run was made at each of the last ten days, and the last one failed."""
    for days in range(9, -1, -1):
        now = time.time() - days * DAY - 60
        error = "" if days else "no broker"
        ended = record(0, 0 if days else 69, days, error)._replace(start=now, end=now + 1)
        FileHistory(host.cache / NAME, 1000).put(ended)
    return host


class TestTable:
    """A line a run."""

    def test_newest_first(self, ran: Host) -> None:
        """All of them, under a header, the newest first."""
        header, *lines = ran.command("runs").stdout.splitlines()
        assert header == HEADER
        assert len(lines) == 10
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +1\.0 +69 +0 +0 +no broker", lines[0])
        assert sorted(lines, reverse=True) == lines

    def test_line(self) -> None:
        """What a line says."""
        full = record(1, 0, 1234)._replace(generation_after="0123456789abcdef", newest="2026-01-02")
        assert as_line(full).split() == [
            "1970-01-02", "00:01:00", "5.0", "0", "1,234", "12,340", "01234567", "2026-01-02",
        ]  # fmt: skip
        assert as_line(record(1, None)).split()[:4] == ["1970-01-02", "00:01:00", "0", "0"]

    def test_columns(self) -> None:
        """The columns stand under their names."""
        line = as_line(record(1, 69, 12, "no broker"))
        for name, value in {"SECONDS": "5.0", "EXIT": "69", "MESSAGES": "12", "BYTES": "120"}.items():
            assert HEADER[: HEADER.index(name) + len(name)][-len(value) :] == name[-len(value) :]
            assert line[: HEADER.index(name) + len(name)].endswith(f" {value}")
        assert line.index("no broker") == HEADER.index("NEWEST")

    def test_none(self, host: Host) -> None:
        """Before the first run there is but the header, and no directory is made."""
        assert host.command("runs").stdout == f"{HEADER}\n"
        assert host.command("runs", "--json").stdout == ""
        assert not host.cache.exists()


class TestChoice:
    """Which ones."""

    def test_last(self, ran: Host) -> None:
        """`--last N`: the last ones."""
        assert len(ran.command("runs", "--last", "3").stdout.splitlines()) == 4

    def test_in_progress(self, ran: Host) -> None:
        """A run in progress is one of them, for people and for programs."""
        process = ran.collect_and_wait()
        assert ran.command().returncode == 75
        _, *lines = ran.command("runs", "--last", "3").stdout.splitlines()
        found = [
            json.loads(line) for line in ran.command("runs", "--last", "3", "--json").stdout.splitlines()
        ]
        process.kill()
        process.communicate(timeout=60)
        assert [each["exit_code"] for each in found] == [75, None, 69]
        assert [line.rpartition("  ")[2] for line in lines[1:]] == ["in progress", "no broker"]
        assert (len(lines), found[1]["error"]) == (3, "in progress")

    def test_since(self, ran: Host) -> None:
        """`--since DURATION`: those that began since."""
        assert len(ran.command("runs", "--since", "7d").stdout.splitlines()) == 8

    @pytest.mark.parametrize("argv", [("--since", "week"), ("--last", "0"), ("--last", "-1")])
    def test_wrong(self, argv: tuple[str, str], host: Host) -> None:
        """What is not a number or a length of time is wrong usage."""
        done = host.command("runs", *argv)
        assert done.returncode == 2
        assert f"argument {argv[0]}: must be a number" in done.stderr


class TestJson:
    """For programs."""

    def test_lines(self, ran: Host) -> None:
        """An object a line, the newest first."""
        found = [json.loads(line) for line in ran.command("runs", "--json").stdout.splitlines()]
        assert [each["exit_code"] for each in found] == [69, *[0] * 9]
        assert found[0]["error"] == "no broker"

    def test_none(self, host: Host) -> None:
        """Before the first run there is nothing."""
        assert host.command("runs", "--json").stdout.strip() == ""


class TestTerminal:
    """On a terminal."""

    def test_bars(self, ran: Host) -> None:
        """A line of bars comes first, the oldest run left."""
        ours, theirs = pty.openpty()
        ran.env["PYTHONIOENCODING"] = "utf-8"
        process = ran.start("runs", stdout=theirs)
        os.close(theirs)
        said = b""
        while chunk := _read(ours):
            said += chunk
        process.communicate(timeout=60)
        os.close(ours)
        assert said.decode().splitlines()[:2] == ["██▇▆▅▅▄▃▂x", HEADER]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # its other end is closed
        return b""


class TestPicture:
    """`--plot`."""

    @pytest.mark.parametrize("kind", ["svg", "png"])
    def test_drawn(self, kind: str, ran: Host) -> None:
        """A file is drawn, and nothing is printed or logged."""
        file = ran.directory / f"runs.{kind}"
        done = ran.command("runs", "--plot", str(file))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert file.stat().st_size > 5000

    def test_not_writable(self, ran: Host, tmp_path: Path) -> None:
        """A place where it cannot be written is one clear error."""
        done = ran.command("runs", "--plot", str(tmp_path / "none" / "runs.svg"))
        assert done.returncode == 1
        assert "runs.svg: cannot be written: No such file" in done.stderr
        assert "Traceback" not in done.stderr

    def test_missing(self, ran: Host) -> None:
        """Without matplotlib one line names what to install."""
        absent = ran.directory / "absent"
        absent.mkdir()
        (absent / "matplotlib.py").write_text("raise ImportError('not here')")
        ran.env["PYTHONPATH"] = str(absent)
        done = ran.command("runs", "--plot", "runs.svg")
        assert done.returncode == 78
        assert re.search(r"-m pip install '.*\[plot\]'", done.stderr)
        assert "Traceback" not in done.stderr
