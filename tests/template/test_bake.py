"""What is generated: exactly the expected files, green at once, for every answer.

By default a few sets of answers are baked; with N6_STATEFUL_ALL_BAKES=1 every pair of answers is.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.template.conftest import ROOT, Bake, Cookiecutter, run
from tests.template.pairs import pairwise

EVERY = pairwise()
SELECTION = EVERY if os.environ.get("N6_STATEFUL_ALL_BAKES") else EVERY[:3]
IDS = [str(number) for number in range(len(SELECTION))]


@pytest.fixture(scope="session")
def runtime_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands for the organisation's package index and for the repository's tag: the runtime's wheel."""
    directory = tmp_path_factory.mktemp("index")
    done = run(
        sys.executable, "-m", "uv", "build", "--wheel", "-o", directory, ROOT / "runtime", cwd=directory
    )
    assert done.returncode == 0, done.stderr
    return directory


def use_index(project: Path, index: Path) -> dict[str, str]:
    """The environment in which `index` is asked too; a reference to the git tag is turned to it."""
    pyproject = project / "pyproject.toml"
    text = re.sub(r'"n6-stateful-runtime @ git[^"]*"', '"n6-stateful-runtime"', pyproject.read_text())
    pyproject.write_text(text)
    return {"UV_FIND_LINKS": str(index)}


def files_of(project: Path) -> set[str]:
    return {
        str(path.relative_to(project))
        for path in project.rglob("*")
        if path.is_file() and "vendor" not in path.relative_to(project).parts
    }


def tox(project: Path, env: dict[str, str], *argv: str) -> None:
    done = run(sys.executable, "-m", "tox", "run", *argv, cwd=project, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("answers", SELECTION, ids=IDS)
def test_a_project_has_exactly_the_files_that_its_answers_call_for(
    answers: dict[str, str], bake: Bake
) -> None:
    name = answers["collector_name"]
    expected = {
        ".cookiecutter.json",
        ".github/workflows/ci.yml",
        ".gitignore",
        ".gitlab-ci.yml",
        ".pre-commit-config.yaml",
        "README.md",
        f"deploy/60_{name}.conf",
        f"etc/60_{name}.conf",
        "pyproject.toml",
        f"src/{name}/__init__.py",
        f"src/{name}/collector.py",
        f"src/{name}/py.typed",
        "tests/test_collector.py",
        "tox.ini",
    }
    expected |= {
        "cron": {f"deploy/cron/{name}.cron"},
        "systemd": {f"deploy/systemd/n6-{name}.{kind}" for kind in ("service", "timer")},
        "kubernetes": {"deploy/kubernetes/Containerfile", "deploy/kubernetes/cronjob.yaml"},
        "none": set(),
    }[answers["scheduler"]]
    if answers["license"] != "none":
        expected.add("LICENSE")
    if answers["download"] == "http":
        expected.add("tests/test_download.py")
    project = bake(**answers)
    assert files_of(project) == expected
    assert (project / "vendor").exists() == (answers["runtime_source"] == "vendored")


@pytest.mark.parametrize("answers", SELECTION, ids=IDS)
def test_no_delimiter_of_the_template_is_left_over(answers: dict[str, str], bake: Bake) -> None:
    project = bake(**answers)
    for name in files_of(project):
        text = (project / name).read_text().replace(answers["_author"] or "<<", "")
        assert not re.search(r"<<|>>|<%|%>|<#|#>", text.replace(json.dumps(answers["_author"]), "")), name


@pytest.mark.parametrize("answers", SELECTION, ids=IDS)
def test_answers_survive_the_formats_that_they_are_written_in(answers: dict[str, str], bake: Bake) -> None:
    import tomllib

    project = bake(**answers)
    name = answers["collector_name"]
    for directory in ("etc", "deploy"):
        parser = configparser.ConfigParser(inline_comment_prefixes=(";",))
        parser.read(project / directory / f"60_{name}.conf")
        assert parser[name]["url"] == answers["url"]
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert [author["name"] for author in about.get("authors", [])] == (
        [answers["_author"]] if answers["_author"] else []
    )
    stored = json.loads((project / ".cookiecutter.json").read_text())["cookiecutter"]
    assert {key: stored[key] for key in answers} == answers


@pytest.mark.parametrize("answers", SELECTION, ids=IDS)
def test_a_project_is_green_at_once(answers: dict[str, str], bake: Bake, runtime_index: Path) -> None:
    project = bake(**answers)
    tox(project, use_index(project, runtime_index) if answers["runtime_source"] != "vendored" else {})


@pytest.mark.parametrize("answers", SELECTION, ids=IDS)
def test_a_project_builds_and_its_wheel_and_sdist_run_elsewhere(
    answers: dict[str, str], bake: Bake, runtime_index: Path, tmp_path: Path
) -> None:
    project = bake(**answers)
    env = use_index(project, runtime_index)
    done = run(sys.executable, "-m", "uv", "build", "-o", tmp_path / "dist", cwd=project, env=env)
    assert done.returncode == 0, done.stderr
    command = "n6collector_" + answers["collector_name"].replace("_collector", "").replace("_", "")
    for number, built in enumerate(sorted((tmp_path / "dist").glob("*[wg][hz]*"))):
        venv = tmp_path / f"venv{number}"
        run(sys.executable, "-m", "uv", "venv", "-q", venv, cwd=tmp_path)
        done = run(
            sys.executable,
            "-m",
            "uv",
            "pip",
            "install",
            "--python",
            venv / "bin/python",
            built,
            cwd=tmp_path,
            env=env,
        )
        assert done.returncode == 0, done.stderr
        done = run(venv / "bin" / command, "--version", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "n6-stateful-runtime" in done.stdout


FILLED_IN = """
        now = "2026-01-02T00:00:00"
        if only_newer_than is not None and only_newer_than >= now:
            return None
        return Download(b"one record", time_utc=now)
"""


def fill_in(project: Path) -> None:
    path = project / "src/my_feed/collector.py"
    text = re.sub(r"\n        raise NotFilledInError.*\n", FILLED_IN, path.read_text())
    path.write_text(text.replace("    NotFilledInError,\n", ""))


@pytest.fixture
def installed(bake: Bake, tmp_path: Path) -> tuple[Path, Path]:
    """A project with default answers, and the command in a virtual environment where it is installed."""
    project = bake()
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "uv", "venv", "-q", venv, cwd=tmp_path)
    python = venv / "bin/python"
    runtime = project / "vendor/n6-stateful-runtime"
    done = run(
        sys.executable, "-m", "uv", "pip", "install", "--python", python, runtime, "-e", project, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return project, venv / "bin/n6collector_myfeed"


def test_a_download_that_is_not_filled_in_is_told_in_one_line(installed: tuple[Path, Path]) -> None:
    project, command = installed
    env = {"HOME": str(project.parent)}
    done = run(command, "--config", "etc", "--log-level", "error", cwd=project, env=env)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "fill in MyFeedCollector._download()" in line
    assert str(project / "src/my_feed/collector.py") in line


def test_a_filled_in_collector_publishes_once_and_its_tests_are_green(installed: tuple[Path, Path]) -> None:
    project, command = installed
    fill_in(project)
    tox(project, {})
    env = {"HOME": str(project.parent), "N6_CONFIG": str(project / "etc")}
    said = []
    for argv in ([], [], ["state", "show"], ["spool", "list"]):
        done = run(command, *argv, cwd=project, env=env)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0].startswith("published 1 message (10 bytes) to the spool")
    assert said[1].startswith("published 0 messages")
    assert "{'last_utc': '2026-01-02T00:00:00'}" in said[2]
    assert "1 message (10 bytes) in the spool" in said[3]


def test_the_steps_that_the_hook_prints_work_line_by_line(cookiecutter: Cookiecutter, tmp_path: Path) -> None:
    done = cookiecutter(download="http", url="http://127.0.0.1:9/")
    steps = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert steps[0] == "cd my_feed"
    assert "tox" in steps
    script = "set -e\n" + "\n".join(step for step in steps if step != "tox" and "--config" not in step)
    checks = [step for step in steps if "--config" in step]
    script += "".join(f"\n{step} || echo exit code $?" for step in checks)
    told = run("bash", "-c", script, cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert told.returncode == 0, told.stderr
    # Nothing listens there: the two runs say so in one clear line, and there is no state to show.
    assert told.stdout.count("exit code 1") == 2
    assert told.stderr.count("could not be downloaded") >= 2
    assert "no state yet" in told.stdout


def test_a_vendored_project_installs_without_any_index(bake: Bake, tmp_path: Path) -> None:
    project = bake()
    wheels = tmp_path / "wheels"
    done = run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    pip = tmp_path / "venv/bin/pip"
    done = run(pip, "download", "-q", "-d", wheels, "pika>=1.3,<2", "flit_core>=3.11,<5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(
        pip, "install", "--no-index", "--find-links", wheels, "./vendor/n6-stateful-runtime", ".",
        cwd=project, env={"PIP_FIND_LINKS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert run(tmp_path / "venv/bin/n6collector_myfeed", "--help", cwd=project).returncode == 0


def test_a_newer_template_is_taken_over_by_a_merge_of_a_new_bake(bake: Bake, tmp_path: Path) -> None:
    project = bake()
    git = ["git", "-c", "user.name=n6", "-c", "user.email=n6@example.org", "-c", "init.defaultBranch=main"]

    def do(*argv: str | Path) -> None:
        done = run(*git, *argv, cwd=project)
        assert done.returncode == 0, done.stdout + done.stderr

    do("init", "-q")
    do("add", "-A")
    do("commit", "-q", "-m", "As it was generated")
    do("branch", "template")
    fill_in(project)
    do("commit", "-q", "-am", "Fill in _download")

    newer = tmp_path / "newer template"
    shutil.copytree(ROOT, newer, ignore=shutil.ignore_patterns(".git", ".tox", ".venv", "*.egg-info"))
    tox_ini = newer / "<<cookiecutter.collector_name>>/tox.ini"
    tox_ini.write_text(tox_ini.read_text().replace("the collector's tests", "the collector's own tests"))
    answers = json.loads((project / ".cookiecutter.json").read_text())["cookiecutter"]
    do("switch", "-q", "template")
    words = [f"{name}={value}" for name, value in answers.items()]
    done = run(
        sys.executable, "-m", "cookiecutter", newer, "--no-input", "--overwrite-if-exists", "-o", "..",
        *words, cwd=project, env={"HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    do("add", "-A")
    do("commit", "-q", "-m", "The newer template")
    do("switch", "-q", "main")
    do("merge", "-q", "--no-edit", "template")
    assert "the collector's own tests" in (project / "tox.ini").read_text()
    assert "one record" in (project / "src/my_feed/collector.py").read_text()
    tox(project, {})


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_service_and_timer(bake: Bake) -> None:
    project = bake(scheduler="systemd")
    service = project / "deploy/systemd/n6-my_feed.service"
    text = service.read_text().replace(
        "/opt/my_feed/bin/n6collector_myfeed", shutil.which("true") or "/bin/true"
    )
    service.write_text(text)
    done = run("systemd-analyze", "verify", service, service.with_suffix(".timer"), cwd=project)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["cookiecutter==2.6.0", "cookiecutter"])
def test_the_oldest_and_the_newest_cookiecutter_bake_the_same(name: str, bake: Bake, tmp_path: Path) -> None:
    reference = bake()
    other = tmp_path / "other"
    other.mkdir()
    env = {"HOME": str(other)}
    done = run(
        sys.executable, "-m", "uv", "tool", "run", "--from", name, "cookiecutter", ROOT, "--no-input",
        cwd=other, env={**env, "UV_CACHE_DIR": str(Path.home() / ".cache/uv")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    baked = other / "my_feed"
    assert files_of(baked) == files_of(reference)
    for each in files_of(baked):
        assert (baked / each).read_text() == (reference / each).read_text()
