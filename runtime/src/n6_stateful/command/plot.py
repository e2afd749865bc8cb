"""`runs --plot`: the runs as a drawing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from n6_stateful.errors import ConfigError
from n6_stateful.extras import needs_extra


def plot(runs: Sequence[Mapping[str, Any]], title: str, now: float, file: Path) -> None:
    """Draw the runs into `file`: the messages of good runs, and the failures, over time until `now`.

    Raises:
        ConfigError: matplotlib is not installed, or does not know that kind of file.
        OSError: the file cannot be written.
    """
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # its first run on a machine logs about fonts
    try:
        from matplotlib import dates as untyped_dates
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as exc:
        raise needs_extra("--plot", "plot", exc) from exc
    dates: Any = untyped_dates  # it has no types
    good = [run for run in runs if run["outcome"] == "ok"]
    times, messages = [_date(run["start"]) for run in good], [run["messages"] for run in good]
    failed = [_date(run["start"]) for run in runs if run["outcome"] not in ("ok", "in progress")]
    first = min([now - 60, *(run["start"] for run in runs)])
    edge = (now - first) / 50
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.vlines(times, 0, messages, colors="0.6", linewidth=1)
    axes.plot(times, messages, "o", color="0.1", markersize=3, label="good run")
    axes.plot(failed, [0] * len(failed), "x", color="#c1121f", zorder=3, clip_on=False, label="failed run")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    axes.set_title(title, loc="left")
    axes.set(xlabel="start of the run (UTC)", xlim=(_date(first - edge), _date(now + edge)))
    axes.set(ylabel="messages of a run", ylim=(0, max([1, *messages]) * 1.05))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_locator(locator := dates.AutoDateLocator())
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(file, dpi=150)
    except ValueError as exc:
        raise ConfigError(f"{file}: {exc}") from exc


def _date(seconds: float) -> Any:
    return datetime.fromtimestamp(seconds, UTC)
