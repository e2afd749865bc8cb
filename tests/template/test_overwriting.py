"""Baking over a project that is there: what is not the template's own is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.template.conftest import Bake, call_cookiecutter

# Names that the template has for other answers, and names that it never has.
OWN = (
    "LICENSE",
    "deploy/ansible/site.yml",
    "deploy/kubernetes/cronjob.yaml",
    "deploy/systemd/n6-my_feed.timer",
    "tests/test_download.py",
    "etc/99_secrets.conf",
    ".copier-answers.yml",
    "vendor/own/own.py",
    "vendor/n6-stateful-runtime/wheels/x.whl",
    "vendor/n6-stateful-runtime/src/n6_stateful/__pycache__/x.pyc",
)


@pytest.mark.parametrize("options", [["-f"], ["-f", "-s"]], ids=" ".join)
@pytest.mark.parametrize("runtime_source", ["vendored", "index"])
def test_own_files(options: list[str], runtime_source: str, bake: Bake, tmp_path: Path) -> None:
    """A file of the owner's is neither deleted nor overwritten."""
    path = bake().path
    for name in OWN:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("the owner's\n")
    done = call_cookiecutter(tmp_path, "--no-input", *options, f"runtime_source={runtime_source}")
    assert done.returncode == 0, done.stderr
    assert [name for name in OWN if (path / name).read_text() != "the owner's\n"] == []


def test_skipping(bake: Bake, tmp_path: Path) -> None:
    """With -s, what the owner has edited stays; what is missing comes back."""
    project = bake()
    project.collector.write_text("# mine\n")
    (project.path / "tox.ini").unlink()
    done = call_cookiecutter(tmp_path, "--no-input", "-f", "-s")
    assert done.returncode == 0, done.stderr
    assert project.collector.read_text() == "# mine\n"
    assert (project.path / "tox.ini").exists()
