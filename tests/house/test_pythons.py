"""The runtime's own tests pass on every Python, and with the oldest dependencies that it allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.template.conftest import ROOT, do, find_python, uv

PARTS = ("core", "journal", "delivery", "bases", "command", "health", "testing")
UNRAISABLE = "pytest.PytestUnraisableExceptionWarning"
DEPENDENCIES = ("amqp", "hypothesis>=6.100", "prometheus_client", "pytest>=8.2", "pytest-xdist")


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("version", "resolution"), [("3.12", "highest"), ("3.13", "highest"), ("3.11", "lowest-direct")]
)
def test_runtime(version: str, resolution: str, tmp_path: Path) -> None:
    """What the default run tries on one Python."""
    python = tmp_path / "venv/bin/python"
    runtime = f"{ROOT / 'runtime'}[feed,http,plot,sql]"
    uv("venv", "-q", "--python", find_python(version), tmp_path / "venv", cwd=tmp_path)
    uv("pip", "install", "-q", "--python", python, "--resolution", resolution, runtime, cwd=tmp_path)
    uv("pip", "install", "-q", "--python", python, *DEPENDENCIES, cwd=tmp_path)
    tests = [f"tests/{part}" for part in PARTS]
    # From 3.13 on Python warns of connections that tests of failing runs leave to the garbage collector, and
    # old dependencies use what is deprecated by now.
    options = ["-q", "-m", "not sweep", "-p", "no:cacheprovider", "-W", f"ignore::{UNRAISABLE}"]
    options += ["-W", "ignore::DeprecationWarning"] if resolution == "lowest-direct" else []
    do(python, "-m", "pytest", *options, *tests, cwd=ROOT)
