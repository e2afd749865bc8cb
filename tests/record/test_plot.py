"""Bars on a terminal, and a picture: its data, not its pixels."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import ConfigError
from n6_stateful.record.plot import bars, plot
from tests.record.test_history import record


class TestBars:
    """A line of bars."""

    def test_heights(self) -> None:
        """A bar is as high as its messages; whatever brought anything shows, and failures are marked."""
        found = [record(1, 0, 0), record(2, 0, 1), record(3, 69), record(4, 0, 1000), record(5, None)]
        assert bars(found) == "▁▂x█x"

    def test_none(self) -> None:
        """No runs, and runs without anything new."""
        assert (bars([]), bars([record(1), record(2)])) == ("", "▁▁")


def points(line: Any) -> list[tuple[Any, Any]]:
    """What a line was drawn through."""
    return list(zip(line.get_xdata(orig=True), line.get_ydata(), strict=True))


class TestPlot:
    """The picture."""

    def test_data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Good runs stand where they began, as high as their messages, failures on the axis. A week without
        any run is a week wide, also the one until now."""
        from matplotlib import figure

        drawn: list[figure.Figure] = []
        save = figure.Figure.savefig

        def watched(self: figure.Figure, *args: Any, **how: Any) -> None:
            drawn.append(self)
            save(self, *args, **how)

        monkeypatch.setattr(figure.Figure, "savefig", watched)
        week = 7 * 24 * 60
        found = [record(1, 0, 5), record(2, 69, 9), record(week, 0, 7), record(week + 1, None)]
        plot(found, "a title", found[-1].start + 7 * 86_400, tmp_path / "runs.svg")
        assert (tmp_path / "runs.svg").read_text().startswith("<?xml")
        (axes,) = drawn[0].axes
        times = [datetime.fromtimestamp(each.start, UTC) for each in found]
        good, failed = map(points, axes.get_lines())
        assert good == [(times[0], 5), (times[2], 7)]
        assert failed == [(times[1], 0), (times[3], 0)]
        left, right = axes.get_xlim()
        assert 14 < right - left < 15  # days
        assert axes.get_ylim()[0] == 0
        assert (axes.get_title("left"), axes.get_ylabel()) == ("a title", "messages of a run")
        assert "UTC" in axes.get_xlabel()

    @pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
    def test_kinds(self, kind: str, tmp_path: Path) -> None:
        """No runs make an empty picture, in any format."""
        plot([], "a title", 86_400, tmp_path / f"runs.{kind}")
        assert (tmp_path / f"runs.{kind}").stat().st_size > 1000

    def test_unknown_kind(self, tmp_path: Path) -> None:
        """A file of a kind that cannot be drawn is one clear error."""
        with pytest.raises(ConfigError, match=r"runs\.xyz"):
            plot([record(1)], "a title", 86_400, tmp_path / "runs.xyz")
