"""Bakes projects with the cookiecutter command, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("TOX_", "VIRTUAL_ENV", "COVERAGE_", "PYTEST_", "UV_PYTHON"))
}

Cookiecutter = Callable[..., subprocess.CompletedProcess[str]]
Bake = Callable[..., Path]


def run(
    *argv: str | Path, cwd: Path, env: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and keep what it says."""
    return subprocess.run(
        list(map(str, argv)),
        cwd=cwd,
        env={**ENVIRONMENT, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def cookiecutter(tmp_path: Path) -> Cookiecutter:
    """The command in an empty directory, with answers as keyword arguments."""
    env = {"COOKIECUTTER_CONFIG": str(tmp_path / "no-user-config"), "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    (tmp_path / "no-user-config").write_text(
        f"cookiecutters_dir: {tmp_path}/clones\nreplay_dir: {tmp_path}/replay\n"
    )

    def call(
        *options: str, template: Path | str = ROOT, no_input: bool = True, **answers: str
    ) -> subprocess.CompletedProcess[str]:
        words = [f"{name}={value}" for name, value in answers.items()]
        flags = ["--no-input"] if no_input else []
        return run(
            sys.executable, "-m", "cookiecutter", template, *flags, *options, *words, cwd=tmp_path, env=env
        )

    return call


@pytest.fixture
def bake(cookiecutter: Cookiecutter, tmp_path: Path) -> Bake:
    """A new project with these answers."""

    def make(**answers: str) -> Path:
        done = cookiecutter(**answers)
        assert done.returncode == 0, done.stderr
        return tmp_path / answers.get("collector_name", "my_feed")

    return make
