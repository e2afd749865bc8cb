"""A picture of what the runs did: messages over time, failures marked, gaps visible."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n6_stateful.errors import ConfigError
from n6_stateful.record.run import RunRecord

BLOCKS = "▁▂▃▄▅▆▇█"
FAILED = "x"


def bars(records: Sequence[RunRecord], width: int) -> str:
    """The last runs as a line, oldest first: a bar a run, as high as its messages; `x` for a failure."""
    shown = records[-width:]
    most = max((each.messages for each in shown), default=0)
    return "".join(
        FAILED if not each.is_good else BLOCKS[-(-each.messages * (len(BLOCKS) - 1) // most) if most else 0]
        for each in shown
    )


def plot(records: Sequence[RunRecord], title: str, file: Path) -> None:
    """Draw the records into `file`, an SVG or a PNG by its name.

    Raises:
        ConfigError: matplotlib is not installed, or cannot write such a file.
        OSError: the file cannot be written.
    """
    try:
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import dates as matplotlib_dates
        from matplotlib import pyplot, ticker
    except ImportError as exc:
        raise ConfigError(
            "--plot needs matplotlib, which is not installed: pip install matplotlib "
            "(the runtime's extra [plot])"
        ) from exc
    dates: Any = matplotlib_dates  # whose functions have no types
    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    good = [(dates.date2num(each.start_time), each.messages) for each in records if each.is_good]
    failed = [dates.date2num(each.start_time) for each in records if not each.is_good]
    starts, messages = [start for start, _ in good], [count for _, count in good]
    axes.vlines(starts, 0, messages, colors="0.6", linewidth=1)
    axes.plot(starts, messages, "o", color="0.1", markersize=3.5, label="good")
    if failed:
        red: dict[str, Any] = {"color": "#c1121f", "markersize": 8, "markeredgewidth": 2}
        axes.plot(failed, [0] * len(failed), "x", label="failed", clip_on=False, zorder=3, **red)
        figure.legend(frameon=False, loc="outside upper right", ncols=2)
    axes.set(xlabel="start of the run (UTC)", ylabel="messages published", ylim=(0, None))
    axes.set_title(title, loc="left")
    axes.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    locator = dates.AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    try:
        figure.savefig(file, dpi=150)
    except ValueError as exc:
        raise ConfigError(f"{file}: {exc}") from exc
    finally:
        pyplot.close(figure)
