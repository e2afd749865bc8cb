"""The command line: options on both sides of a subcommand, arguments of a collector, what is refused."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import __version__
from n6_stateful.command.parser import parse
from n6_stateful.errors import EXIT_CODES
from tests.command.conftest import Host, SampleCollector

README = Path(__file__).resolve().parents[2] / "README.md"


def parsed(*argv: str) -> argparse.Namespace:
    return parse("n6collector_sample", SampleCollector, argv)


def test_places() -> None:
    """Without a subcommand the collector runs; options count before and after it, and `--config` adds up."""
    assert parsed().handler == parsed("run").handler == parsed("--dry-run").handler == "runs.run"
    for argv in ("--output u run", "run --output u", "--output=u", "--output u check", "check --output=u"):
        assert parsed(*argv.split()).output == "u"
    args = parsed("--config", "a", "state", "--config", "b", "reset", "--yes", "--config", "c")
    assert (args.config, args.handler, args.yes) == (["a", "b", "c"], "state.reset", True)


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ("--no-such-option", "unrecognized"),
        ("--log-level loud", "invalid choice"),
        ("--output= ", "must not be empty"),
        ("outbox list --limit=0", "--limit: must be a number, 1 or more"),
        ("runs --since week", "--since: invalid seconds value"),
        ("run --limit 3", "--limit needs --dry-run"),
        ("--dry-run state reset --yes", "--dry-run does not apply to this subcommand"),
        ("--output outbox: state show", "--output does not apply"),
        # What follows a misspelt option may be a password.
        ("--outptu=amqp://u:hunter2@h/", "unrecognized arguments: --outptu=amqp://***"),
        ("run --outptu amqp://u:p'hunter2@h/", "amqp://***"),
    ],
)
def test_refused(argv: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage is 2, and one line says what is wrong; a secret is not shown."""
    with pytest.raises(SystemExit) as caught:
        parsed(*argv.split(" "))
    error = capsys.readouterr().err.splitlines()[-1]
    assert (caught.value.code, problem in error, "hunter2" in error) == (2, True, False)


def test_group(host: Host) -> None:
    """A group of subcommands by itself prints its help."""
    for group in ("state", "outbox"):
        done = host(group)
        assert (done.code, done.err, f"usage: n6collector_sample {group}" in done.out) == (2, "", True)


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--version` shows the runtime's, and that of the distribution that the collector comes with, if any."""
    for module, own in (("tests.command", ""), ("pytest.collector", f"pytest {pytest.__version__}, ")):
        monkeypatch.setattr(SampleCollector, "__module__", module)
        with pytest.raises(SystemExit):
            parsed("--version")
        assert capsys.readouterr().out == f"n6collector_sample: {own}n6-stateful-runtime {__version__}\n"


class Named(SampleCollector):
    def get_arg_parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser()
        parser.add_argument("section")
        parser.add_argument("--month", type=int)
        return parser

    def get_config_spec(self) -> str:
        cls: Any = type(self)
        return self.config_spec.replace("sample", cls.cmdline_args.section or "sample")


def test_own_arguments(host: Host) -> None:
    """An argument of the collector's own counts before or after other options, with and without `run`, and if
    it is required, only a run requires it."""
    host.collector = Named
    lines = ("sample", "--log-level error sample", "run sample --month 5", "--help", "state show", "")
    assert [host(*argv.split()).code for argv in lines] == [0, 0, 0, 0, 0, 2]
    assert [host(*argv.split()).code for argv in ("other", "state show other", "status")] == [78, 78, 0]


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` and README.md have the same table of exit codes."""
    with pytest.raises(SystemExit):
        parsed("--help")
    text = capsys.readouterr().out
    assert [code for code, meaning in EXIT_CODES.items() if f"\n  {code:<4} {meaning}" not in text] == []
    rows = [line.strip("|").split("|") for line in README.read_text().splitlines() if line[:1] == "|"]
    table = {cells[0].strip(): cells[1].strip() for cells in rows if len(cells) == 2}
    assert {code: table.get(str(code)) for code in EXIT_CODES} == EXIT_CODES
