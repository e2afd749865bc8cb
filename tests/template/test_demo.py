"""The demo: it does the main job as a user would, and fails when what it claims is not so."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.template.conftest import ROOT, run


def test_main_job(
    tmp_path: Path,
) -> None:
    """The demo does the main job, and leaves a project whose tests, lint and types are green."""
    done = run(sys.executable, ROOT / "examples/demo.py", tmp_path / "demo", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1,200 records published" in done.stdout
    assert "0 records published" in done.stdout
    assert "60 records published" in done.stdout
    project = tmp_path / "demo/my_urlhaus"
    assert f"cd {project}" in done.stdout
    done = run(sys.executable, "-m", "tox", "run", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_left(tmp_path: Path) -> None:
    """The demo leaves nothing behind when asked."""
    env = {"TMPDIR": str(tmp_path)}
    done = run(sys.executable, ROOT / "examples/demo.py", "--remove", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "text", "instead", "claim"),
    [
        (
            "runtime/src/n6_stateful/bases/rows.py",
            "            if row_time < begin:",
            "            if False:",
            "the third run published the 60 new ones",
        ),
        (
            "runtime/src/n6_stateful/bases/shape.py",
            "self.save_state(self.state)",
            "pass",
            "the state names the newest time",
        ),
    ],
    ids=["takes all again", "does not remember"],
)
def test_claim_not_so(tmp_path: Path, file: str, text: str, instead: str, claim: str) -> None:
    """The demo fails when what it claims is not so."""
    checkout = tmp_path / "checkout"
    not_copied = shutil.ignore_patterns(".git", ".tox", "venv", ".venv", "*cache*", ".hypothesis")
    shutil.copytree(ROOT, checkout, ignore=not_copied)
    code = (checkout / file).read_text()
    assert code.count(text) == 1
    (checkout / file).write_text(code.replace(text, instead))
    done = run(sys.executable, checkout / "examples/demo.py", tmp_path / "demo", cwd=tmp_path)
    assert done.returncode == 1
    assert f"NOT SO: {claim}" in done.stderr
    assert "Traceback" not in done.stderr
