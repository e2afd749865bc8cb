"""The command line: options that count wherever they stand, and what is refused."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from n6_stateful.command.parser import parse
from n6_stateful.command.run import run
from n6_stateful.command.state import reset
from n6_stateful.errors import EXIT_CODES
from tests.runtime.sample_collector import SampleCollector

README = Path(__file__).resolve().parents[2] / "README.md"


def parsed(*argv: str) -> Namespace:
    return parse("n6collector_sample", SampleCollector, argv)


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parsed(*argv)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


class TestPlaces:
    """Where an option stands."""

    @pytest.mark.parametrize("argv", [[], ["run"]])
    def test_run(self, argv: list[str]) -> None:
        """Without a subcommand the collector runs."""
        assert parsed(*argv).handler is run

    @pytest.mark.parametrize(
        "argv", [["--output", "u", "run"], ["run", "--output", "u"], ["--output=u"], ["check", "--output=u"]]
    )
    def test_anywhere(self, argv: list[str]) -> None:
        """An option counts before and behind the subcommand."""
        assert parsed(*argv).output == "u"

    def test_config_adds_up(self) -> None:
        """`--config` given before, between and behind adds up in its order."""
        args = parsed("--config", "a", "state", "--config", "b", "reset", "--yes", "--config", "c")
        assert args.config == ["a", "b", "c"]
        assert args.handler is reset
        assert args.yes

    @pytest.mark.parametrize(
        "argv",
        [
            ["--dry-run", "state", "reset", "--yes"],
            ["state", "reset", "--dry-run"],
            ["--dry-run", "spool", "forward"],
            ["--dry-run", "check"],
            ["--output", "spool:/x", "state", "show"],
        ],
    )
    def test_does_not_apply(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """An option that the subcommand does not have is refused, wherever it stands."""
        assert "does not apply to this subcommand" in refusal(capsys, *argv)


class TestRefused:
    """What is wrong usage."""

    @pytest.mark.parametrize(
        "argv", [["--output", ""], ["--config", ""], ["--config="], ["spool", "forward", "--to", " "]]
    )
    def test_empty(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """An empty value is an error."""
        assert "must not be empty" in refusal(capsys, *argv)

    @pytest.mark.parametrize(
        "argv",
        [
            ["--outptu", "amqp://u:hunter2@h/"],
            ["--outptu=amqp://u:hunter2@h/"],
            ["run", "--outptu", "amqp://u:p ' hunter2@h/"],
            ["amqp://u:hunter2@h/"],
            ["--log-level", "amqp://u:hunter2@h/"],
        ],
    )
    def test_no_password(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """What stands behind a misspelt option may hold a password, and is not shown."""
        shown = refusal(capsys, *argv)
        assert "amqp://***" in shown
        assert "hunter2" not in shown

    @pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", ""])
    def test_limit(self, limit: str, capsys: pytest.CaptureFixture[str]) -> None:
        """A number of messages is 1 or more."""
        assert "--limit: must be a number, 1 or more" in refusal(capsys, "spool", "list", f"--limit={limit}")

    def test_enormous_limit(self) -> None:
        """A number too large for the machine is as good as none."""
        assert parsed("spool", "list", "--limit", "9" * 20).limit == (1 << 63) - 1


class TestExitCodes:
    """One table of exit codes."""

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`--help` tells them all."""
        with pytest.raises(SystemExit):
            parsed("--help")
        told = capsys.readouterr().out
        for code, meaning in EXIT_CODES.items():
            assert f"\n  {code:<4} {meaning}" in told

    def test_readme(self) -> None:
        """README.md has the same table."""
        rows = [line.strip("|").split("|") for line in README.read_text().splitlines() if line[:1] == "|"]
        table = {cells[0].strip(): cells[1].strip() for cells in rows if len(cells) == 2}
        assert {code: table.get(str(code)) for code in EXIT_CODES} == EXIT_CODES
