"""The demo does the main job as a user would, and fails when one of its claims is wrong."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.template.conftest import NOT_OURS, ROOT, Project, replace, run


def test_main_job(tmp_path: Path) -> None:
    """The demo does the main job, and leaves nothing behind when asked."""
    env = {"TMPDIR": str(tmp_path)}
    done = run(sys.executable, ROOT / "examples/demo.py", "--remove", cwd=tmp_path, env=env)
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
def test_wrong_claim(tmp_path: Path) -> None:
    """The demo fails when what it claims is wrong: here a state that is not kept."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*NOT_OURS, ".hypothesis"))
    method = "    def save_state(self, state: Any) -> None:\n"
    wrong = "        if state:\n            state = self.make_default_state()\n"
    text = (checkout / "runtime/src/n6_stateful/state.py").read_text()
    end = text.index('"""\n', text.index('"""', text.index(method)) + 3) + 4
    replace(checkout / "runtime/src/n6_stateful/state.py", (text[:end], text[:end] + wrong))
    done = run(sys.executable, checkout / "examples/demo.py", tmp_path / "demo", cwd=tmp_path)
    assert done.returncode == 1
    assert "WRONG: " in done.stderr, done.stderr
