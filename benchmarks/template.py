"""How long it takes from `cookiecutter` to the generated project's green `tox`, and where the time goes.

    python benchmarks/template.py [--runs 5]

Bakes a project with default answers and runs its tox, each time from nothing, with warm package caches (the
first run fills them and does not count). Prints medians in seconds. Needs cookiecutter, tox and tox-uv in its
environment, and no network once the caches are warm.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GOAL = 10.0  # seconds


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = [measure() for _ in range(parser.parse_args().runs + 1)][1:]
    for what in runs[0]:
        print(f"{what:<44} {statistics.median(run[what] for run in runs):6.2f} s")
    total = statistics.median(sum(run.values()) for run in runs)
    print(f"{f'all (the goal: at most {GOAL:.0f} s)':<44} {total:6.2f} s")
    raise SystemExit(total > GOAL)


def measure() -> dict[str, float]:
    """The seconds of each part of one run, from an empty directory."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "config.yaml").write_text(f"cookiecutters_dir: {name}/c\nreplay_dir: {name}/r\n")
        options = ("--config-file", "config.yaml", "--no-input")
        baking, _ = timed("cookiecutter", *options, str(ROOT), directory=directory)
        checking, output = timed("tox", "run", directory=directory / "my_feed")
    parts = {"cookiecutter": baking}
    for environment, setup, commands in re.findall(
        r"(\w+): OK \([\d.]+=setup\[([\d.]+)\]\+cmd\[([\d.,]+)\]", output
    ):
        parts[f"tox: {environment}: making the environment"] = float(setup)
        parts[f"tox: {environment}: running"] = sum(map(float, commands.split(",")))
    parts["tox itself"] = checking - sum(parts.values()) + baking
    return parts


def timed(module: str, *argv: str, directory: Path) -> tuple[float, str]:
    """The seconds that a program takes, and its output; it has to succeed."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("TOX_", "VIRTUAL_ENV"))}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", module, *argv], cwd=directory, env=env, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{done.stdout}{done.stderr}")
    return seconds, done.stdout


if __name__ == "__main__":
    main()
