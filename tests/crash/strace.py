"""System calls of a child process: which it makes, and what happens if one kills it or fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

# Those by which a file or a directory changes, or a message leaves. ("?": not every machine has each.)
CHANGING = (
    "openat,?mkdir,?mkdirat,write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync,?rename,?renameat,renameat2,"
    "?link,linkat,?unlink,unlinkat,ftruncate,flock,fchmod,?chmod,?fchmodat,close"
)
# Those by which they are looked at.
LOOKING = "read,pread64,?stat,?lstat,?fstat,?newfstatat,?statx,getdents64"
_CALL = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(?P<name>\w+)\((?P<arguments>.*)")


class Call(NamedTuple):
    """One system call: its name, its arguments as strace shows them, and its number among its name's."""

    name: str
    arguments: str
    number: int


def need_strace() -> None:
    """Skip, or fail in CI, where strace is not there or may not trace."""
    problem = ""
    if shutil.which("strace") is None:
        problem = "strace is not installed: apt-get install strace"
    elif subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode:
        problem = "strace may not trace here (ptrace is forbidden)"
    if problem and os.environ.get("N6_STATEFUL_REQUIRE_BROKER"):
        pytest.fail(problem)
    if problem:
        pytest.skip(problem)


def run(
    *argv: str | Path, inject: str | Sequence[str] = (), log: Path | None = None, trace: str = CHANGING
) -> subprocess.CompletedProcess[str]:
    """Run this Python with `argv` under strace.

    Args:
        argv: program and arguments.
        inject: what happens, as strace's `--inject` takes it; several, if need be.
        log: where the trace goes; without one only what `inject` needs is traced.
        trace: the system calls in it.
    """
    injections = [inject] if isinstance(inject, str) else list(inject)
    options = [f"--inject={each}" for each in injections]
    if log is None and injections:
        trace = ",".join(each.partition(":")[0] for each in injections)
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(
        [*["strace", "-f", "-qq", "-s", "200", "-o"], str(log or os.devnull), f"--trace={trace}", *options,
         sys.executable, *map(str, argv)],
        capture_output=True,
        text=True,
        env={**env, "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=120,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def calls(log: Path) -> list[Call]:
    """The calls in a trace, in order."""
    counts: dict[str, int] = {}
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = _CALL.match(line)
        if match and "resumed>" not in line:
            name = match["name"]
            counts[name] = counts.get(name, 0) + 1
            found.append(Call(name, match["arguments"], counts[name]))
    return found
