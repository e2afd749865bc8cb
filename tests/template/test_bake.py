"""What is generated: exactly the expected files, green at once, for every answer.

By default a few sets of answers are baked; with N6_STATEFUL_ALL_BAKES=1 every pair of answers is, and the
projects are tried on every Python and with the oldest tools that they allow. With N6_STATEFUL_DRIFT=1 they
are tried with the newest tools, whatever the bounds are.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from n6_stateful_template import TAKEN_NAMES, class_name, command_name
from tests.template.conftest import ALL_BAKES, ROOT, Bake, Project, call_cookiecutter, do, run, uv
from tests.template.pairs import pairwise

DRIFT = pytest.mark.skipif(
    "N6_STATEFUL_DRIFT" not in os.environ,
    reason="N6_STATEFUL_DRIFT is not set: newest tools are tried weekly",
)
EVERY = pairwise()
EACH_SHAPE = list({each["shape"]: each for each in reversed(EVERY)}.values())
SELECTION = EVERY if ALL_BAKES else EACH_SHAPE


class Baked:
    """A project, and the answers that it was made with."""

    def __init__(self, project: Project, answers: dict[str, str]) -> None:
        self.project = project
        self.answers = answers
        self.files = project.files()


@pytest.fixture(scope="module", params=SELECTION, ids=[str(number) for number in range(len(SELECTION))])
def baked(request: pytest.FixtureRequest, bake_in: Bake, tmp_path_factory: pytest.TempPathFactory) -> Baked:
    return Baked(bake_in(tmp_path_factory.mktemp("bake"), **request.param), request.param)


def test_every_pair() -> None:
    """Every pair of answers is baked."""
    assert 10 < len(EVERY) < 30
    assert len(EACH_SHAPE) == 6
    for name, value in {"download": "http", "runtime_source": "git"}.items():
        for scheduler in ("cron", "systemd", "kubernetes", "none"):
            assert any(each[name] == value and each["scheduler"] == scheduler for each in EVERY)


def test_files(baked: Baked) -> None:
    """A project has exactly the files that its answers call for."""
    answers = baked.answers
    name = answers["collector_name"]
    expected = {
        ".cookiecutter.json",
        ".gitattributes",
        ".github/dependabot.yml",
        ".github/workflows/ci.yml",
        ".gitignore",
        ".gitlab-ci.yml",
        ".pre-commit-config.yaml",
        "CHANGELOG.md",
        "README.md",
        f"deploy/prometheus/n6-{name}.yml",
        f"etc/60_{name}.conf",
        "etc/90_development.conf",
        "pyproject.toml",
        f"src/{name}/__init__.py",
        f"src/{name}/collector.py",
        f"src/{name}/py.typed",
        "tests/test_collector.py",
        "tox.ini",
    }
    expected |= {
        "cron": set() if answers["shape"] == "email" else {f"deploy/cron/{name}.cron"},
        "systemd": {f"deploy/systemd/n6-{name}{kind}" for kind in (".service", "-failed.service", ".timer")},
        "kubernetes": {
            f"deploy/kubernetes/{each}" for each in ("70_kubernetes.conf", "Containerfile", "cronjob.yaml")
        },
        "none": set(),
    }[answers["scheduler"]]
    if answers["license"] != "none":
        expected.add("LICENSE")
    if (answers["shape"], answers["download"]) == ("download", "http"):
        expected.add("tests/test_download.py")
    assert baked.files == expected
    assert (baked.project.path / "vendor").exists() == (answers["runtime_source"] == "vendored")


def test_delimiters(baked: Baked) -> None:
    """No delimiter of the template is left over."""
    for name in baked.files:
        text = (baked.project.path / name).read_text()
        for said in (baked.answers["_author"], json.dumps(baked.answers["_author"], ensure_ascii=False)):
            text = text.replace(said or "<<", "")
        assert not re.search(r"<<|>>|<%|%>|<#|#>", text), name


def test_white_space(baked: Baked) -> None:
    """Files end with one newline, and have no white space to trim."""
    for name in baked.files:
        text = (baked.project.path / name).read_text()
        assert text == "".join(f"{line.rstrip()}\n" for line in text.rstrip().splitlines()), name


def test_formats(baked: Baked) -> None:
    """Answers survive the formats that they are written in."""
    path, answers = baked.project.path, baked.answers
    name = answers["collector_name"]
    parser = configparser.ConfigParser(inline_comment_prefixes=(";",))
    parser.read(path / f"etc/60_{name}.conf")
    if answers["shape"] != "email":
        assert parser[name]["url"] == answers["url"]
    about = tomllib.loads((path / "pyproject.toml").read_text())["project"]
    assert [author["name"] for author in about.get("authors", [])] == (
        [answers["_author"]] if answers["_author"] else []
    )
    stored = json.loads((path / ".cookiecutter.json").read_text())["cookiecutter"]
    assert {key: stored[key] for key in answers} == answers


def test_the_license_names_its_owner(baked: Baked) -> None:
    if baked.answers["license"] != "none":
        owner = baked.answers["_author"] or f"the authors of {baked.project.name}"
        assert f"Copyright (c) {owner}\n" in (baked.project.path / "LICENSE").read_text()


def test_a_project_is_green_at_once(baked: Baked) -> None:
    baked.project.tox()


def test_wheel_and_sdist(baked: Baked, tmp_path: Path) -> None:
    """A project builds and its wheel and sdist run elsewhere."""
    project = baked.project
    env = project.env
    if baked.answers["runtime_source"] == "vendored":
        uv(
            "build",
            "-q",
            "--wheel",
            "-o",
            tmp_path / "runtime",
            "vendor/n6-stateful-runtime",
            cwd=project.path,
        )
        env = {"UV_FIND_LINKS": str(tmp_path / "runtime")}
    uv("build", "-q", "-o", tmp_path / "dist", cwd=project.path, env=env)
    built = sorted((tmp_path / "dist").glob("*[wg][hz]*"))
    assert [path.suffix for path in built] == [".whl", ".gz"]
    for number, each in enumerate(built):
        venv = tmp_path / f"venv{number}"
        uv("venv", "-q", venv, cwd=tmp_path)
        uv("pip", "install", "-q", "--python", venv / "bin/python", each, cwd=tmp_path, env=env)
        said = do(venv / "bin" / command_name(project.name), "--version", cwd=tmp_path)
        assert f"{project.name.replace('_', '-')} 0.1.0, n6-stateful-runtime 0.1.0" in said.replace(
            project.name, project.name.replace("_", "-")
        )


def test_class_and_command(baked: Baked) -> None:
    """Class and command follow from the name."""
    name = baked.project.name
    scripts = tomllib.loads((baked.project.path / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {command_name(name): f"{name}.collector:{class_name(name)}.run_script"}


def find_python(version: str) -> str | None:
    """The Python of that version, as uv or pyenv knows it."""
    done = run(sys.executable, "-m", "uv", "python", "find", "--no-project", version, cwd=ROOT)
    if done.returncode == 0:
        return done.stdout.strip()
    if shutil.which("pyenv"):
        for known in do("pyenv", "versions", "--bare", cwd=ROOT).split():
            if known.startswith(f"{version}."):
                return f"{do('pyenv', 'prefix', known, cwd=ROOT).strip()}/bin/python"
    return None


@pytest.mark.skipif(not ALL_BAKES, reason="N6_STATEFUL_ALL_BAKES is not set")
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_each_python(version: str, tmp_path: Path) -> None:
    """A project is baked and green on each Python."""
    found = find_python(version)
    if found is None:
        pytest.skip(f"there is no Python {version}")
    python = tmp_path / "tools/bin/python"
    uv("venv", "-q", "--python", found, tmp_path / "tools", cwd=tmp_path)
    tools = ("cookiecutter>=2.6,<3", "tox>=4.22,<5", "tox-uv>=1.20,<2")
    uv("pip", "install", "-q", "--python", python, *tools, cwd=tmp_path)
    assert call_cookiecutter(tmp_path, "--no-input", "download=http", executable=python).returncode == 0
    said = do(python, "-m", "tox", "run", cwd=tmp_path / "my_feed")
    assert f"Python {version}." in said


@pytest.mark.skipif(not ALL_BAKES, reason="N6_STATEFUL_ALL_BAKES is not set")
def test_a_project_is_green_without_uv(bake: Bake, tmp_path: Path) -> None:
    project = bake(download="http")
    uv("venv", "-q", tmp_path / "tools", cwd=tmp_path)
    uv("pip", "install", "-q", "--python", tmp_path / "tools/bin/python", "tox>=4.22,<5", cwd=tmp_path)
    do(tmp_path / "tools/bin/tox", "run", cwd=project.path, env=project.env)


@pytest.mark.skipif(not ALL_BAKES, reason="N6_STATEFUL_ALL_BAKES is not set")
def test_oldest_tools(bake: Bake) -> None:
    """A project is green with the oldest tools that it allows."""
    bake(download="http").tox(UV_RESOLUTION="lowest-direct")


@DRIFT
@pytest.mark.parametrize("download", ["fill in", "http"])
def test_newest_tools(download: str, bake: Bake) -> None:
    """A project is green with the newest tools."""
    project = bake(download=download)
    lift_bounds(project)
    project.tox()


@DRIFT
def test_names_of_tools(bake: Bake) -> None:
    """No collector can have the name of what the newest tools install beside it."""
    project = bake(download="http")
    lift_bounds(project)
    project.tox("--notest")
    places = project.path.glob(".tox/*/lib/python*/site-packages")
    modules = {path.name.split(".")[0] for place in places for path in place.iterdir()}
    modules = {name for name in modules if re.fullmatch("[a-z][a-z0-9_]*", name)} - {"my_feed", "bin"}
    assert "requests" in modules
    assert modules - TAKEN_NAMES == set()


def lift_bounds(project: Project) -> None:
    """Take the upper bound from every requirement."""
    for name in ("tox.ini", "pyproject.toml", "vendor/n6-stateful-runtime/pyproject.toml"):
        path = project.path / name
        lifted = re.sub(r"(>=[\d.]+),<[\d.]+", r"\1", path.read_text())
        path.write_text(re.sub(r"\n    tox <\d+", "", lifted))
        assert not re.search(r",<\d", path.read_text()), name
