"""What is generated: exactly the expected files, well-formed, green at once, for every answer.

The sweep bakes every pair of answers, and tries projects on every Python and with the oldest tools that they
allow; with N6_STATEFUL_DRIFT=1 also with the newest tools, beyond the bounds.
"""

from __future__ import annotations

import configparser
import json
import os
import random
import re
import sys
import tomllib
from itertools import combinations, product
from pathlib import Path

import pytest

from n6_stateful_template import TAKEN_NAMES, class_name, command_name
from tests.template.conftest import (
    REPOSITORY,
    ROOT,
    SHAPES,
    Bake,
    call_cookiecutter,
    do,
    files_in,
    find_python,
    make_venv,
    uv,
)

# Every value of every question that matters for what is generated.
VALUES = {
    "collector_name": ["my_feed", "urlhaus2_collector", "abusechthreatfoxrecentioc_feed"],
    "shape": SHAPES,
    "url": ["https://feed.example/new.csv", "https://feed.example/a%20b/'$(x)';#c?q=%3C&d=!"],
    "download": ["fill in", "http"],
    "scheduler": ["cron", "systemd", "kubernetes", "none"],
    "runtime_source": ["vendored", "index", "git"],
    "_raw_type": ["", "file"],
    "license": ["none", "MIT", "BSD-3-Clause"],
    "_author": ["", 'Zoë "O\'Neil" \\ <CSIRT> {{ %(x)s $(x) <<y>>'],
}
Answers = dict[str, str]


def is_possible(answers: Answers) -> bool:
    """Whether the template accepts these answers together."""
    return answers["shape"] != "email" or (
        answers["download"] == "fill in" and answers["scheduler"] in ("cron", "none")
    )


def pairwise() -> list[Answers]:
    """Few sets of answers such that every pair of values of two questions is in one of them."""
    chance, chosen = random.Random(1), []
    first = {name: values[0] for name, values in VALUES.items()}
    missing = {
        ((name, value), (other, another))
        for (name, values), (other, others) in combinations(VALUES.items(), 2)
        for value, another in product(values, others)
        if is_possible({**first, name: value, other: another})
    }
    while missing:
        some = [
            {**{name: chance.choice(values) for name, values in VALUES.items()}, **dict(min(missing))}
            for _ in range(300)
        ]
        best = max(
            filter(is_possible, some), key=lambda answers: len(missing & {*combinations(answers.items(), 2)})
        )
        missing -= {*combinations(best.items(), 2)}
        chosen.append(best)
    return chosen


# In the default run: each shape and each scheduler, with values that are hard to write down.
FEW = [
    {
        "shape": shape,
        "scheduler": scheduler,
        "license": license,
        "url": VALUES["url"][1],
        "_author": VALUES["_author"][1],
    }
    for shape, scheduler, license in (
        ("download", "cron", "none"),
        ("rows", "systemd", "MIT"),
        ("items", "kubernetes", "BSD-3-Clause"),
        ("pages", "none", "none"),
        ("feed", "cron", "MIT"),
        ("list", "systemd", "none"),
        ("email", "none", "BSD-3-Clause"),
    )
]
ALL = pairwise()


def expected_files(answers: Answers, name: str) -> set[str]:
    """The files that these answers need."""
    files = set(
        ".cookiecutter.json .gitattributes .github/dependabot.yml .github/workflows/ci.yml .gitignore"
        " .gitlab-ci.yml .pre-commit-config.yaml CHANGELOG.md README.md pyproject.toml tox.ini"
        f" deploy/prometheus/n6-{name}.yml etc/60_{name}.conf etc/90_development.conf"
        f" src/{name}/__init__.py src/{name}/collector.py src/{name}/py.typed tests/test_collector.py".split()
    )
    files |= {
        "cron": set() if answers["shape"] == "email" else {f"deploy/cron/{name}.cron"},
        "systemd": {f"deploy/systemd/n6-{name}{kind}" for kind in (".service", "-failed.service", ".timer")},
        "kubernetes": {
            f"deploy/kubernetes/{file}" for file in ("70_kubernetes.conf", "Containerfile", "cronjob.yaml")
        },
        "none": set(),
    }[answers["scheduler"]]
    if answers["license"] != "none":
        files.add("LICENSE")
    if answers["shape"] in ("download", "pages", "feed"):
        files.add("tests/test_download.py")
    return files


@pytest.mark.parametrize(
    "answers",
    [*FEW, *(pytest.param(answers, marks=pytest.mark.sweep) for answers in ALL)],
    ids=lambda answers: answers["shape"],
)
def test_files(answers: Answers, baked: Bake) -> None:
    """A project has exactly the files that its answers need, well-formed, and the answers as given."""
    project = baked(**answers)
    name = project.name
    assert project.files() == expected_files(answers, name)
    assert (project.path / "vendor").exists() == (answers.get("runtime_source", "vendored") == "vendored")
    author = answers["_author"]
    for file in project.files():
        text = project.read(file)
        assert text == "".join(f"{line.rstrip()}\n" for line in text.rstrip().splitlines()), file
        for written in filter(None, (author, json.dumps(author, ensure_ascii=False))):
            text = text.replace(written, "")
        assert not re.search(r"<<|>>|<%|%>|<#|#>", text), file
    parser = configparser.ConfigParser(inline_comment_prefixes=(";",))
    parser.read(project.path / f"etc/60_{name}.conf")
    if answers["shape"] != "email":
        assert parser[name]["url"] == answers["url"]
    about = tomllib.loads(project.read("pyproject.toml"))["project"]
    assert about.get("authors", []) == ([{"name": author}] if author else [])
    declared = ">=0.1.0,<0.2"
    if answers.get("runtime_source") == "git":
        declared = f"@ git+{REPOSITORY}@v0.1.0#subdirectory=runtime"
    assert re.fullmatch(rf"n6-stateful-runtime(\[[a-z,]+\])? {re.escape(declared)}", about["dependencies"][0])
    assert about["scripts"] == {command_name(name): f"{name}.collector:{class_name(name)}.run_script"}
    stored = json.loads(project.read(".cookiecutter.json"))["cookiecutter"]
    assert {key: stored[key] for key in answers} == answers
    if answers["license"] != "none":
        assert f"Copyright (c) {author or f'the authors of {name}'}\n" in project.read("LICENSE")


def test_vendored(baked: Bake) -> None:
    """The vendored runtime is the template's, in at most 45 files, and marked as vendored."""
    project = baked()
    vendored = project.path / "vendor/n6-stateful-runtime"
    files = files_in(vendored)
    assert files == {name for name in files_in(ROOT / "runtime") if ".egg-info" not in name}
    assert len(files) <= 45
    assert all((vendored / name).read_bytes() == (ROOT / "runtime" / name).read_bytes() for name in files)
    assert "vendor/** linguist-vendored -diff\n" in project.read(".gitattributes")


def test_tox(bake: Bake) -> None:
    """A project is green at once."""
    bake().tox()


@pytest.mark.parametrize("options", [["-f"], ["-f", "-s"]], ids=" ".join)
def test_own_files(options: list[str], bake: Bake, tmp_path: Path) -> None:
    """Baking over a project leaves files that are not the template's; with -s, all that are there."""
    own = (
        "LICENSE",
        "deploy/kubernetes/cronjob.yaml",
        "tests/test_own.py",
        "etc/99_secrets.conf",
        "vendor/own/own.py",
        "vendor/n6-stateful-runtime/src/n6_stateful/__pycache__/x.pyc",
    )
    project = bake()
    for name in own:
        (project.path / name).parent.mkdir(parents=True, exist_ok=True)
        (project.path / name).write_text("the owner's\n")
    project.collector.write_text("# mine\n")
    (project.path / "tox.ini").unlink()
    done = call_cookiecutter(tmp_path, "--no-input", *options)
    assert done.returncode == 0, done.stderr
    assert [name for name in own if project.read(name) != "the owner's\n"] == []
    assert (project.collector.read_text() == "# mine\n") == ("-s" in options)
    assert (project.path / "tox.ini").exists()


@pytest.mark.sweep
class TestSweep:
    """Every pair of answers, and other tools."""

    @pytest.mark.parametrize("answers", ALL, ids=lambda answers: answers["shape"])
    def test_tox(self, answers: Answers, bake: Bake) -> None:
        """Each of these projects is green at once."""
        bake(**answers).tox()

    @pytest.mark.parametrize("answers", {answers["runtime_source"]: answers for answers in ALL}.values())
    def test_wheel_and_sdist(self, answers: Answers, baked: Bake, tmp_path: Path) -> None:
        """A project can be built, and its wheel and sdist run elsewhere."""
        project = baked(**answers)
        env = project.env
        if answers["runtime_source"] == "vendored":
            vendored = "vendor/n6-stateful-runtime"
            uv("build", "-q", "--wheel", "-o", tmp_path / "runtime", vendored, cwd=project.path)
            env = {"UV_FIND_LINKS": str(tmp_path / "runtime")}
        uv("build", "-q", "-o", tmp_path / "dist", cwd=project.path, env=env)
        built = sorted((tmp_path / "dist").glob("*[wg][hz]*"))
        assert [path.suffix for path in built] == [".whl", ".gz"]
        for number, package in enumerate(built):
            venv = tmp_path / f"venv{number}"
            uv("venv", "-q", venv, cwd=tmp_path)
            uv("pip", "install", "-q", "--python", venv / "bin/python", package, cwd=tmp_path, env=env)
            text = do(venv / "bin" / command_name(project.name), "--version", cwd=tmp_path)
            assert "n6-stateful-runtime 0.1.0" in text

    @pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
    def test_python(self, version: str, tmp_path: Path) -> None:
        """A project is baked and green on each Python."""
        tools = make_venv(
            tmp_path / "tools", "cookiecutter>=2.6,<3", "tox>=4.22,<5", "tox-uv", on=find_python(version)
        )
        assert call_cookiecutter(tmp_path, "--no-input", "download=http", executable=tools).returncode == 0
        assert f"Python {version}." in do(tools, "-m", "tox", "run", cwd=tmp_path / "my_feed")

    def test_without_uv(self, bake: Bake, tmp_path: Path) -> None:
        """A project is green with a tox that has no uv."""
        tools = make_venv(tmp_path / "tools", "tox>=4.22,<5")
        do(tools, "-m", "tox", "run", cwd=bake(download="http").path)

    def test_oldest_tools(self, bake: Bake) -> None:
        """A project is green with the oldest tools that it allows."""
        bake(download="http").tox(UV_RESOLUTION="lowest-direct")

    def test_no_network(self, bake: Bake, tmp_path: Path) -> None:
        """The README's two commands install a project without a network; uv asks no index for the runtime."""
        project = bake(download="http")
        uv("lock", "-q", cwd=project.path)
        packages = tomllib.loads(project.read("uv.lock"))["package"]
        assert {"directory": "vendor/n6-stateful-runtime"} in [package["source"] for package in packages]
        readme = project.read("README.md")
        (download,) = re.findall(r"`(pip download [^`]+)`", readme)
        (install,) = re.findall(r"`(pip install --no-index [^`]+)`", readme)
        do(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
        env = {"PATH": f"{tmp_path}/venv/bin:/usr/bin:/bin"}
        do("bash", "-euc", download, cwd=project.path, env=env)
        nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
        do("bash", "-euc", install, cwd=project.path, env=env | nowhere | {"PIP_FIND_LINKS": ""})
        do(tmp_path / "venv/bin/n6collector_myfeed", "--help", cwd=project.path)


@pytest.mark.skipif("N6_STATEFUL_DRIFT" not in os.environ, reason="N6_STATEFUL_DRIFT is not set")
@pytest.mark.parametrize("shape", ["download", "feed"])
def test_newest_tools(shape: str, bake: Bake) -> None:
    """A project is green with the newest tools, and no collector can have the name of one of them."""
    project = bake(shape=shape)
    for name in ("tox.ini", "pyproject.toml", "vendor/n6-stateful-runtime/pyproject.toml"):
        path = project.path / name
        lifted = re.sub(r"(>=[\d.]+),<[\d.]+", r"\1", path.read_text())
        path.write_text(re.sub(r"\n    tox <\d+", "", lifted))
        assert not re.search(r",<\d", path.read_text()), name
    project.tox()
    places = project.path.glob(".tox/*/lib/python*/site-packages")
    modules = {path.name.split(".")[0] for place in places for path in place.iterdir()}
    modules = {name for name in modules if re.fullmatch("[a-z][a-z0-9_]*", name)} - {"my_feed", "bin"}
    assert modules - TAKEN_NAMES == set()
