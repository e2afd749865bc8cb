"""Paths, zips, git tags, `gh:`, replays, files of answers, an old and a new cookiecutter bake the same."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from tests.template.conftest import (
    ROOT,
    Bake,
    Cookiecutter,
    Done,
    call_cookiecutter,
    files_in,
    git,
    uv,
)

ANSWERS = ["--no-input", "download=http", "scheduler=systemd", "license=MIT"]


def contents(project: Path) -> dict[str, str]:
    """Every file of a project, without where it was baked from."""
    named = source(project)
    texts = {name: (project / name).read_text() for name in files_in(project)}
    return {
        name: text.replace(shlex.quote(named), named).replace(named, "...") for name, text in texts.items()
    }


def source(project: Path) -> str:
    """Where a project says that it was baked from; its README says the same."""
    named = str(json.loads((project / ".cookiecutter.json").read_text())["template"])
    assert f"\ncookiecutter {shlex.quote(named)} --replay-file" in (project / "README.md").read_text()
    return named


@pytest.fixture(scope="module")
def reference(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The project as it is baked from a path."""
    directory = tmp_path_factory.mktemp("reference")
    succeeded(call_cookiecutter(directory, *ANSWERS, template=repository.with_suffix("")))
    return contents(directory / "my_feed")


def succeeded(done: Done) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("way", ["relative path", "zip", "git tag", "gh:", "clone with changes"])
def test_every_way(
    way: str, repository: Path, published: dict[str, str], reference: dict[str, str], tmp_path: Path
) -> None:
    """Every way to name the template bakes the same."""
    options = list(ANSWERS)
    template = named = "gh:org/n6-stateful"
    if way == "zip":
        template = named = str(tmp_path / "n6-stateful-0.1.0.zip")
        git(repository, "archive", "--prefix=n6-stateful-0.1.0/", "-o", template, "v0.1.0")
    elif way == "git tag":
        template = named = f"file://{repository}"
        options += ["--checkout", "v0.1.0"]
    elif way == "relative path":
        template = "some where/n6-stateful"
        named = str(tmp_path / template)
        git(tmp_path, "clone", "-q", repository, tmp_path / template)
    elif way == "clone with changes":
        template = named = str(tmp_path / "clone")
        git(tmp_path, "clone", "-q", repository, template)
        built = Path(template, "runtime/src/n6_stateful/__pycache__")
        built.mkdir()
        (built / "left.pyc").touch()
    succeeded(call_cookiecutter(tmp_path, *options, template=template, env=published))
    assert source(tmp_path / "my_feed") == named
    assert contents(tmp_path / "my_feed") == reference


@pytest.mark.parametrize("version", ["==2.6.0", ">=2.7"])
def test_cookiecutters(version: str, repository: Path, reference: dict[str, str], tmp_path: Path) -> None:
    """The oldest and the newest cookiecutter bake the same."""
    template = repository.with_suffix("")
    python = tmp_path / "tools/bin/python"
    uv("venv", "-q", tmp_path / "tools", cwd=tmp_path)
    uv("pip", "install", "-q", "--python", python, f"cookiecutter{version}", cwd=tmp_path)
    succeeded(call_cookiecutter(tmp_path, *ANSWERS, template=template, executable=python))
    assert contents(tmp_path / "my_feed") == reference
    shutil.move(tmp_path / "my_feed", tmp_path / "first")
    answers = tmp_path / "first/.cookiecutter.json"
    succeeded(call_cookiecutter(tmp_path, "--replay-file", answers, template=template, executable=python))
    assert contents(tmp_path / "my_feed") == reference
    shutil.rmtree(tmp_path / "my_feed")
    done = call_cookiecutter(tmp_path, "--no-input", "collector_name=class", executable=python)
    assert "collector_name=class_feed" in done.stdout + done.stderr


def test_replay(repository: Path, reference: dict[str, str], tmp_path: Path) -> None:
    """A replay bakes the same even if the template has moved."""
    for place in ("one", "two"):
        git(tmp_path, "clone", "-q", repository, tmp_path / place / "n6-stateful")
    succeeded(call_cookiecutter(tmp_path, *ANSWERS, template=tmp_path / "one/n6-stateful"))
    shutil.rmtree(tmp_path / "one")
    shutil.rmtree(tmp_path / "my_feed")
    succeeded(call_cookiecutter(tmp_path, "--replay", template=tmp_path / "two/n6-stateful"))
    assert contents(tmp_path / "my_feed") == reference


def test_changed_answers(bake: Bake, cookiecutter: Cookiecutter, tmp_path: Path) -> None:
    """Answers changed in a file are checked before anything is written."""
    path = bake().path / ".cookiecutter.json"
    stored = json.loads(path.read_text())
    stored["cookiecutter"] |= {"collector_name": "class", "source_provider": "No Provider"}
    path.write_text(json.dumps(stored))
    done = call_cookiecutter(tmp_path, "--replay-file", path, template=ROOT)
    assert done.returncode == 1
    assert "2 answers cannot be used" in done.stdout + done.stderr
    assert not (tmp_path / "class").exists()


@pytest.mark.parametrize(
    ("origin", "declared"),
    [
        ("https://me:hidden@git.example/n6-stateful.git", "git+https://git.example/n6-stateful.git@v0.1.0"),
        ("git@git.example:org/n6-stateful.git", "git+ssh://git@git.example/org/n6-stateful.git@v0.1.0"),
        (None, "git+file://{template}@v0.1.0"),
    ],
)
def test_runtime_repository(origin: str | None, declared: str, repository: Path, tmp_path: Path) -> None:
    """With runtime_source = git, pip gets the runtime from where the template came from."""
    template = tmp_path / "template"
    git(tmp_path, "clone", "-q", repository, template)
    git(template, "remote", *(("set-url", "origin", origin) if origin else ("remove", "origin")))
    succeeded(call_cookiecutter(tmp_path, "--no-input", "runtime_source=git", template=template))
    text = "".join(path.read_text() for path in (tmp_path / "my_feed").rglob("*") if path.is_file())
    assert f'"n6-stateful-runtime @ {declared.format(template=template)}#' in text
    assert "hidden" not in text


def test_no_git_runtime_from_a_zip(repository: Path, tmp_path: Path) -> None:
    """A zip names no git repository, and none is guessed."""
    template = tmp_path / "n6-stateful-0.1.0.zip"
    git(repository, "archive", "--prefix=n6-stateful-0.1.0/", "-o", template, "v0.1.0")
    done = call_cookiecutter(tmp_path, "--no-input", "runtime_source=git", template=template)
    assert done.returncode == 1
    assert "runtime_source = git needs a template from git" in done.stdout + done.stderr


def test_line_ends(repository: Path, tmp_path: Path) -> None:
    """They are LF whatever git is set to: a carriage return would end cron's command."""
    convert = ("-c", "core.autocrlf=true")
    git(tmp_path, *convert, "clone", "-q", repository, tmp_path / "template")
    succeeded(call_cookiecutter(tmp_path, "--no-input", template=tmp_path / "template"))
    project = tmp_path / "my_feed"
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "As it was generated")
    git(tmp_path, *convert, "clone", "-q", project, tmp_path / "clone")
    for each in (project, tmp_path / "clone"):
        assert [name for name in files_in(each) if b"\r\n" in (each / name).read_bytes()] == []
