"""A newer template is taken over by a project that its owner has edited."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.template.conftest import (
    REPOSITORY,
    Project,
    blocks_in,
    call_cookiecutter,
    do,
    git,
    run,
    uv,
)

WHO = {
    "GIT_AUTHOR_NAME": "n6",
    "GIT_AUTHOR_EMAIL": "n6@example.org",
    "GIT_COMMITTER_NAME": "n6",
    "GIT_COMMITTER_EMAIL": "n6@example.org",
}
TEMPLATE = "<<cookiecutter.collector_name>>"


@pytest.fixture
def template(repository: Path, tmp_path: Path) -> Path:
    """A clone of the template, and what `gh:org/n6-stateful` stands for in these tests."""
    clone = tmp_path / "github/n6-stateful"
    git(tmp_path, "clone", "-q", repository, clone)
    return clone


@pytest.fixture
def env(template: Path) -> dict[str, str]:
    return WHO | {
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"url.file://{template}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"{REPOSITORY}.git",
        "GIT_CONFIG_KEY_1": f"url.file://{template}.insteadOf",
        "GIT_CONFIG_VALUE_1": REPOSITORY,
    }


def make_newer(template: Path) -> None:
    """Change what a release changes: a line, a file more, a file fewer, the runtime."""

    def replace(name: str, old: str, new: str) -> None:
        path = template / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    replace(f"{TEMPLATE}/tox.ini", "the collector's tests", "the collector's own tests")
    replace("runtime/src/n6_stateful/__init__.py", '__version__ = "0.1.0"', '__version__ = "0.1.1"')
    (template / "runtime/src/n6_stateful/extra.py").write_text('"""New in 0.1.1."""\n')
    (template / f"{TEMPLATE}/SECURITY.md").write_text("Write to <<cookiecutter._author>>.\n")
    (template / f"{TEMPLATE}/.pre-commit-config.yaml").unlink()
    git(template, "add", "-A")
    git(template, "commit", "-q", "-m", "0.1.1")


def edit(project: Project) -> None:
    """Do to a project what its owner does."""
    project.fill_in()
    tox = project.path / "tox.ini"
    tox.write_text(tox.read_text() + "\n[testenv:mine]\ncommands = python -V\n")
    readme = project.path / "README.md"
    readme.write_text(readme.read_text().replace("# my_feed\n", "# my_feed, the best feed\n"))
    (project.path / "src/my_feed/parsing.py").write_text('"""The owner\'s own."""\n')
    git(project.path, "add", "-A")
    git(project.path, "commit", "-q", "-m", "Fill in _download")


@pytest.fixture
def project(template: Path, env: dict[str, str], tmp_path: Path) -> Project:
    """A project of the older release, under git, edited."""
    options = ["--no-input", "--checkout", "v0.1.0", "_author=CSIRT"]
    done = call_cookiecutter(tmp_path, *options, template="gh:org/n6-stateful", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    project = Project(tmp_path / "my_feed", {})
    git(project.path, "init", "-q")
    git(project.path, "add", "-A")
    git(project.path, "commit", "-q", "-m", "As it was generated")
    edit(project)
    return project


def recipe(project: Project) -> str:
    """What the README says about updating."""
    *_, commands = blocks_in((project.path / "README.md").read_text())
    return commands


def follow_recipe(project: Project, env: dict[str, str], tools: Path) -> None:
    env = env | {"HOME": str(project.path.parent / "home"), "PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin"}
    done = run("bash", "-euc", recipe(project), cwd=project.path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(params=["==2.6.0", ">=2.7"])
def tools(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where `cookiecutter` is, of one version."""
    uv("venv", "-q", tmp_path / "tools", cwd=tmp_path)
    python = tmp_path / "tools/bin/python"
    uv("pip", "install", "-q", "--python", python, f"cookiecutter{request.param}", cwd=tmp_path)
    return python.parent


def test_newer_template(project: Project, template: Path, env: dict[str, str], tools: Path) -> None:
    """The README's recipe merges a newer template into an edited project."""
    project.tox("-e", "tests,types")
    command = project.install(project.path / "venv")
    make_newer(template)
    follow_recipe(project, env, tools)
    assert git(project.path, "status", "--short") == ""
    tox = (project.path / "tox.ini").read_text()
    assert "the collector's own tests" in tox
    assert "[testenv:mine]" in tox
    assert "one record" in project.collector.read_text()
    assert (project.path / "README.md").read_text().startswith("# my_feed, the best feed\n")
    assert (project.path / "SECURITY.md").read_text() == "Write to CSIRT.\n"
    assert not (project.path / ".pre-commit-config.yaml").exists()
    assert (project.path / "vendor/n6-stateful-runtime/src/n6_stateful/extra.py").exists()
    assert (project.path / "src/my_feed/parsing.py").exists()
    # In environments that have the older runtime, too.
    project.tox()
    for environment in ("tests", "types"):
        do(
            project.path / f".tox/{environment}/bin/python",
            "-c",
            "import n6_stateful.extra",
            cwd=project.path,
        )
    project.install(project.path / "venv")
    assert "n6-stateful-runtime 0.1.1" in do(command, "--version", cwd=project.path)


def test_another_answer(project: Project, env: dict[str, str], tools: Path) -> None:
    """Another answer is taken over in the same way."""
    path = project.path / ".cookiecutter.json"
    path.write_text(path.read_text().replace('"scheduler": "cron"', '"scheduler": "systemd"'))
    git(project.path, "commit", "-q", "-am", "systemd from now on")
    follow_recipe(project, env, tools)
    assert (project.path / "deploy/systemd/n6-my_feed.timer").exists()
    assert not (project.path / "deploy/cron").exists()
    assert "one record" in project.collector.read_text()


def test_new_question(project: Project, template: Path, env: dict[str, str], tmp_path: Path) -> None:
    """A question that is new in the template is asked."""
    questions = json.loads((template / "cookiecutter.json").read_text())
    questions["contact"] = "soc@example.org"
    (template / "cookiecutter.json").write_text(json.dumps(questions))
    (template / TEMPLATE / "SECURITY.md").write_text("Write to <<cookiecutter.contact>>.\n")
    shutil.rmtree(tmp_path / ".home")
    answers = project.path / ".cookiecutter.json"
    done = call_cookiecutter(
        tmp_path,
        "--replay-file",
        answers,
        "-o",
        "new",
        template=template,
        env=env,
        input="csirt@example.org\n",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "new/my_feed/SECURITY.md").read_text() == "Write to csirt@example.org.\n"
