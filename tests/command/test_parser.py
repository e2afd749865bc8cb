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


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parsed(*argv)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


class TestPlaces:
    """Where an option stands."""

    def test_run(self) -> None:
        """Without a subcommand the collector runs."""
        assert parsed().handler == parsed("run").handler == parsed("--dry-run").handler == "runs.run"

    @pytest.mark.parametrize(
        "argv", [["--output", "u", "run"], ["run", "--output", "u"], ["--output=u"], ["check", "--output=u"]]
    )
    def test_both_sides(self, argv: list[str]) -> None:
        """An option counts before and after the subcommand."""
        assert parsed(*argv).output == "u"

    def test_config_adds_up(self) -> None:
        """`--config` before, between and after adds up in its order."""
        args = parsed("--config", "a", "state", "--config", "b", "reset", "--yes", "--config", "c")
        assert (args.config, args.handler, args.yes) == (["a", "b", "c"], "state.reset", True)

    @pytest.mark.parametrize(
        "argv",
        [
            ["--dry-run", "state", "reset", "--yes"],
            ["--dry-run", "outbox", "deliver"],
            ["--quiet-repeats", "check"],
            ["--output", "outbox:", "state", "show"],
        ],
    )
    def test_does_not_apply(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """An option that the subcommand does not have is refused, although it stands before it."""
        assert "does not apply to this subcommand" in refusal(capsys, *argv)


class TestRefused:
    """Wrong usage."""

    @pytest.mark.parametrize(
        ("argv", "problem"),
        [
            (["--no-such-option"], "unrecognized"),
            (["--log-level", "loud"], "invalid choice"),
            (["--output", ""], "must not be empty"),
            (["--config="], "must not be empty"),
            (["outbox", "list", "--limit=0"], "--limit: must be a number, 1 or more"),
            (["runs", "--since", "week"], "--since: invalid seconds value"),
            (["run", "--limit", "3"], "--limit needs --dry-run"),
        ],
    )
    def test_usage(self, argv: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
        """One line says what is wrong."""
        assert problem in refusal(capsys, *argv)

    @pytest.mark.parametrize(
        "argv",
        [
            ["--outptu=amqp://u:hunter2@h/"],
            ["run", "--outptu", "amqp://u:p ' hunter2@h/"],
            ["amqp://hunter2"],
        ],
    )
    def test_no_password(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """What follows a misspelt option may be a password, and is not shown."""
        assert "hunter2" not in refusal(capsys, *argv)

    @pytest.mark.parametrize("group", ["state", "outbox"])
    def test_group(self, group: str, host: Host) -> None:
        """A group of subcommands by itself prints its help."""
        done = host(group)
        assert (done.code, done.err) == (2, "")
        assert f"usage: n6collector_sample {group}" in done.out


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--version` shows the runtime's, and that of the distribution that the collector comes with, if any."""
    for module, own in (("tests.command", ""), ("pytest.collector", f"pytest {pytest.__version__}, ")):
        monkeypatch.setattr(SampleCollector, "__module__", module)
        with pytest.raises(SystemExit) as caught:
            parsed("--version")
        assert caught.value.code is None
        assert capsys.readouterr().out == f"n6collector_sample: {own}n6-stateful-runtime {__version__}\n"


class TestOwnArguments:
    """Arguments that the collector adds with `get_arg_parser`."""

    class Named(SampleCollector):
        def get_arg_parser(self) -> argparse.ArgumentParser:
            parser = argparse.ArgumentParser()
            parser.add_argument("section")
            parser.add_argument("--month", type=int)
            return parser

        def get_config_spec(self) -> str:
            cls: Any = type(self)
            return self.config_spec.replace("sample", cls.cmdline_args.section or "sample")

    def test_before_the_constructor(self, host: Host) -> None:
        """A required argument counts before or after other options, with and without `run`."""
        host.collector = self.Named
        for argv in (["sample"], ["--log-level", "error", "sample"], ["run", "sample", "--month", "5"]):
            assert host(*argv).code == 0
        assert host("other").code == 78
        assert host().code == 2

    def test_not_in_the_way(self, host: Host) -> None:
        """It is not required by `--help` or a subcommand, which takes it all the same."""
        host.collector = self.Named
        for argv in (["--help"], ["state", "show"], ["state", "show", "other"], ["status"]):
            code = 78 if "other" in argv else 3 if argv == ["status"] else 0
            assert host(*argv).code == code, argv


class TestExitCodes:
    """One table of exit codes."""

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`--help` lists all of them."""
        with pytest.raises(SystemExit):
            parsed("--help")
        text = capsys.readouterr().out
        assert [f"\n  {code:<4} {meaning}" in text for code, meaning in EXIT_CODES.items()] == [True] * len(
            EXIT_CODES
        )

    def test_readme(self) -> None:
        """README.md has the same table."""
        rows = [line.strip("|").split("|") for line in README.read_text().splitlines() if line[:1] == "|"]
        table = {cells[0].strip(): cells[1].strip() for cells in rows if len(cells) == 2}
        assert {code: table.get(str(code)) for code in EXIT_CODES} == EXIT_CODES
