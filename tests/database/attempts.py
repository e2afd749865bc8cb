"""Runs of a collector in processes of their own, begun so cheaply that a hundred can be."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

from n6_stateful import settings
from n6_stateful.command import check as check
from n6_stateful.command import main
from n6_stateful.command import state as state
from n6_stateful.output import spool as spool  # so that the processes have it already
from n6_stateful.state import database as database
from tests.broker.private_node import until
from tests.crash.growing_collector import GrowingCollector

# They are forked from one that has imported everything.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


class HeldCollector(GrowingCollector):
    """One that waits before a save for as long as the test wants it to.

    Where the file `hold` in the directory of its feed is, it makes `held-<pid>` beside it and waits for
    `hold` to go, or for `go-<pid>` to be there.
    """

    def save_state(self, state: Any) -> None:
        """Wait, then save."""
        wait_while(Path(self.config["url"]).with_name("hold"))
        super().save_state(state)


def wait_while(hold: Path) -> None:
    """Say that the process is there, and wait for the file to go."""
    held = hold.with_name(f"held-{os.getpid()}")
    if hold.exists():
        held.touch()
        go = hold.with_name(f"go-{os.getpid()}")
        until(lambda: go.exists() or not hold.exists(), "the end of the test", 120)
        held.unlink()


class Attempt:
    """`argv` as the command of a `HeldCollector`, begun at once.

    Args:
        argv: as `main` takes it.
        output: where standard output and error go.
        namespace: the network namespace to run in; None means that of the tests.
    """

    def __init__(self, argv: list[str], output: Path, namespace: str | None = None) -> None:
        self._output = output
        self._process = _CONTEXT.Process(target=_run, args=(argv, str(output), namespace))
        self._process.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process.exitcode is not None

    @property
    def told(self) -> str:
        """What it has printed."""
        return self._output.read_text()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there still."""
        if not self.is_over:
            os.kill(self.pid, number)

    def wait(self, seconds: float = 120) -> int:
        """Its exit code, negative for a signal."""
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"it does not end: {self.told}"
        return code


def _run(argv: list[str], output: str, namespace: str | None) -> None:
    with Path(output).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if namespace is not None:
        with Path("/run/netns", namespace).open() as entered:
            if ctypes.CDLL(None, use_errno=True).setns(entered.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
    with settings.use(settings.Settings()):
        sys.exit(main(HeldCollector, argv))
