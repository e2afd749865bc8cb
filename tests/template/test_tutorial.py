"""The tutorial: every command on the page runs, in this order."""

from __future__ import annotations

import re
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.template.conftest import ROOT, run

BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps(text: str) -> Iterator[str]:
    """What a reader does: type the commands, and write the files that are named in their first lines."""
    for kind, block in BLOCK.findall(text):
        if kind == "console":
            yield from (line.removeprefix("$ ") for line in block.splitlines())
        elif match := re.match(r"# (\S+)\n", block):
            yield f"printf %s {shlex.quote(block.removeprefix(match[0]))} > {shlex.quote(match[1])}"


@pytest.mark.sweep
def test_tutorial(tmp_path: Path) -> None:
    """Every command succeeds, and does what the page says."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = (ROOT / "docs/tutorial.md").read_text()
    text = text.replace("gh:org/n6-stateful", shlex.quote(str(ROOT))).replace("8000", str(port))
    # As in a terminal, the server may be stopped by its job's number.
    script = "set -e -m\n" + "\n".join(steps(text))
    env = {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = run("bash", "-c", script, cwd=tmp_path, env=env | {"COOKIECUTTER_CONFIG": "/dev/null"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("collected 1 message ") >= 2  # the new rows of a file are one
    assert done.stdout.count("collected 0 messages") >= 1
    assert "'newest_row_time': '2026-01-01 12:00:00'" in done.stdout
    assert "OK - " in done.stdout
