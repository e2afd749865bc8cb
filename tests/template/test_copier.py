"""copier bakes what cookiecutter bakes, asks the same questions, and updates what it has made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.template.conftest import (
    ROOT,
    Project,
    blocks_in,
    call_cookiecutter,
    do,
    files_in,
    git,
    run,
    uv,
    words,
)
from tests.template.test_update import WHO, edit, make_newer

QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text())
EXTENSIONS = "copier-template-extensions"
COPIER = yaml.safe_load((ROOT / "copier.yml").read_text())


@pytest.fixture(scope="session")
def copier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, in an environment of its own."""
    venv = tmp_path_factory.mktemp("copier")
    uv("venv", "-q", venv, cwd=venv)
    tools = ("copier>=9.4,<10", f"{EXTENSIONS}>=0.3,<1")
    uv("pip", "install", "-q", "--python", venv / "bin/python", *tools, cwd=venv)
    return venv / "bin/copier"


def test_questions() -> None:
    """The questions are those of cookiecutter."""
    questions = {name: each for name, each in COPIER.items() if name[0] != "_"}
    asked = {name: each for name, each in questions.items() if each.get("when") is not False}
    assert list(asked) == [name for name in QUESTIONS if name[0] != "_"]
    for name, question in asked.items():
        prompt = QUESTIONS["__prompts__"][name]
        assert question["help"] == (prompt["__prompt__"] if isinstance(prompt, dict) else prompt)
        default = QUESTIONS[name]
        if isinstance(default, list):
            assert question["choices"] == default
            default = default[0]
        assert question["default"] == default.replace("cookiecutter.", "")


def test_version() -> None:
    """One version is named everywhere."""
    init = (ROOT / "runtime/src/n6_stateful/__init__.py").read_text()
    (version,) = re.findall(r'__version__ = "(.*)"', init)
    assert QUESTIONS["_version"] == version
    assert f'_version="{version}"' in COPIER["cookiecutter"]["default"]


@pytest.mark.parametrize(
    "answers",
    [
        {"download": "http"},
        {"shape": "rows", "scheduler": "systemd", "runtime_source": "git", "license": "MIT"},
    ],
    ids=["http", "systemd"],
)
def test_it_bakes_the_same(answers: dict[str, str], copier: Path, repository: Path, tmp_path: Path) -> None:
    template = f"git+file://{repository}"
    done = call_cookiecutter(tmp_path, "--no-input", *words(answers), template=template)
    assert done.returncode == 0, done.stderr
    given = [word for each in words(answers) for word in ("-d", each)]
    do(copier, "copy", "--trust", "--defaults", *given, template, "other", cwd=tmp_path)
    assert files_in(tmp_path / "other") == files_in(tmp_path / "my_feed") | {".copier-answers.yml"}
    for name in files_in(tmp_path / "my_feed") - {"README.md"}:
        assert (tmp_path / "other" / name).read_bytes() == (tmp_path / "my_feed" / name).read_bytes(), name
    ours, theirs = ((tmp_path / each / "README.md").read_text() for each in ("other", "my_feed"))
    until = "## Updating to a newer template"
    assert ours.partition(until)[0] == theirs.partition(until)[0]
    assert "cookiecutter" not in ours.partition(until)[2]


def test_checked_answers(copier: Path, repository: Path, tmp_path: Path) -> None:
    """Answers are checked before anything is written."""
    bad = ("-d", "collector_name=class", "-d", "url=nowhere")
    done = run(
        copier, "copy", "--trust", "--defaults", *bad, f"git+file://{repository}", "project", cwd=tmp_path
    )
    assert done.returncode != 0
    assert "'class' is a Python keyword; url = 'nowhere'" in done.stderr
    assert not (tmp_path / "project").exists()


def test_it_updates_an_edited_project(copier: Path, repository: Path, tmp_path: Path) -> None:
    template = tmp_path / "template"
    git(tmp_path, "clone", "-q", repository, template)
    project = Project(tmp_path / "my_feed", {})
    do(copier, "copy", "--trust", "--defaults", f"git+file://{template}", project.path, cwd=tmp_path)
    git(project.path, "init", "-q")
    git(project.path, "add", "-A")
    git(project.path, "commit", "-q", "-m", "As it was generated")
    edit(project)
    make_newer(template)
    git(template, "tag", "v0.1.1")
    *_, recipe = blocks_in((project.path / "README.md").read_text())
    assert recipe == f"uvx --with {EXTENSIONS} copier update --trust\n"
    do(copier, "update", "--trust", "--defaults", cwd=project.path, env=WHO)
    assert "_commit: v0.1.1" in (project.path / ".copier-answers.yml").read_text()
    tox = (project.path / "tox.ini").read_text()
    assert "the collector's own tests" in tox
    assert "[testenv:mine]" in tox
    assert "one record" in project.collector.read_text()
    assert (project.path / "SECURITY.md").exists()
    assert not (project.path / ".pre-commit-config.yaml").exists()
    assert (project.path / "vendor/n6-stateful-runtime/src/n6_stateful/extra.py").exists()
    project.tox()
