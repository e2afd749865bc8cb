"""Bars on a terminal, and a picture."""

from __future__ import annotations

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
        assert bars(found, 60) == "▁▂x█x"

    def test_width(self) -> None:
        """Only the last runs are shown."""
        assert bars([record(number, 0, number) for number in range(100)], 10)[-1] == "█"
        assert len(bars([record(number) for number in range(100)], 10)) == 10
        assert bars([], 10) == ""


class TestPlot:
    """The picture's data."""

    def test_svg(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Good runs are drawn with their messages, failures on the axis, and both are named."""
        from matplotlib import dates, figure

        drawn: list[figure.Figure] = []
        save = figure.Figure.savefig

        def watched(self: figure.Figure, *args: Any, **how: Any) -> None:
            drawn.append(self)
            save(self, *args, **how)

        monkeypatch.setattr(figure.Figure, "savefig", watched)
        found = [record(1, 0, 5), record(2, 69), record(3, 0, 7)]
        plot(found, "a title", tmp_path / "runs.svg")
        assert (tmp_path / "runs.svg").read_text().startswith("<?xml")
        (axes,) = drawn[0].axes
        good, failed = axes.get_lines()
        assert list(good.get_ydata()) == [5, 7]  # type: ignore[arg-type]
        when = dates.date2num(record(2).start_time)  # type: ignore[no-untyped-call]
        assert list(failed.get_xdata()) == [when]  # type: ignore[arg-type]
        assert (axes.get_title("left"), axes.get_ylabel()) == ("a title", "messages published")
        assert "UTC" in axes.get_xlabel()

    def test_kind(self, tmp_path: Path) -> None:
        """A file of a kind that cannot be drawn is one clear error."""
        with pytest.raises(ConfigError, match=r"runs\.xyz"):
            plot([record(1)], "a title", tmp_path / "runs.xyz")

    def test_empty(self, tmp_path: Path) -> None:
        """No runs make an empty picture."""
        plot([], "a title", tmp_path / "runs.png")
        assert (tmp_path / "runs.png").stat().st_size > 1000
