"""The demo does the main job as a user would, and fails when a claim of its is wrong."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.template.conftest import NOT_OURS, ROOT, Project, replace, run


def test_main_job(tmp_path: Path) -> None:
    """The demo does the main job, and leaves nothing behind when asked."""
    done = run(
        sys.executable, ROOT / "examples/demo.py", "--remove", cwd=tmp_path, env={"TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for records in ("1,200", "0", "60"):
        assert f": {records} records published" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.sweep
def test_project(tmp_path: Path) -> None:
    """Without `--remove` it leaves a project whose tests, style and types are green."""
    done = run(sys.executable, ROOT / "examples/demo.py", tmp_path / "demo", cwd=tmp_path)
    assert f"cd {tmp_path}/demo/my_urlhaus" in done.stdout, done.stdout + done.stderr
    Project(tmp_path / "demo/my_urlhaus").tox()


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("file", "text", "instead", "claim"),
    [
        (
            "state.py",
            "def save_state(self, state: Any) -> None:",
            "def save_state(self, state: Any) -> None:\n        return",
            "the state has the newest time",
        ),
        (
            "bases/rows.py",
            "        super().start_publishing()",
            "        super().start_publishing()",
            "each record",
        ),
    ],
    ids=["does not remember", "publishes again"],
)
def test_wrong_claim(file: str, text: str, instead: str, claim: str, tmp_path: Path) -> None:
    """The demo fails when what it claims is wrong."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*NOT_OURS, ".hypothesis"))
    replace(checkout / "runtime/src/n6_stateful" / file, (text, instead))
    done = run(sys.executable, checkout / "examples/demo.py", tmp_path / "demo", cwd=tmp_path)
    assert done.returncode == 1
    assert f"WRONG: {claim}" in done.stderr
    assert "Traceback" not in done.stderr
