"""Bakes projects with the cookiecutter command, as a user does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import indent

import pytest

from examples.feed_server import FeedServer, serving
from n6_stateful_template import class_name

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/org/n6-stateful"
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("TOX_", "VIRTUAL_ENV", "COVERAGE_", "PYTEST_", "PYTHONPATH", "UV_PYTHON", "N6_"))
} | {"UV_PYTHON_DOWNLOADS": "never", "no_proxy": "127.0.0.1"}
NOT_OURS = {".git", ".tox", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__", "venv"}
SHAPES = ("download", "rows", "items", "pages", "feed", "list", "email")

Done = subprocess.CompletedProcess[str]

# Methods as the owner would write them.
FILLED_IN = {
    "_download": """url = f"{self.config['url']}&since={only_newer_than}"
with urllib.request.urlopen(url) as answer:  # noqa: S310
    body = answer.read()
    return Download(body, time_utc=answer.headers["X-Newest"]) if body else None""",
    "obtain_orig_data": 'return b"2026-01-01 00:00:00,one row\\n"',
    "pick_raw_row_time": 'return row.partition(",")[0]',
    "clean_row_time": "return raw_row_time",
    "obtain_items": 'return ["an item"]',
    "item_key": "return str(item)",
    "download_page": """url = f"{self.config['url']}&after={cursor}"
with urllib.request.urlopen(url) as answer:  # noqa: S310
    page = json.loads(answer.read())
    return Page(page["records"], page["next"], page["more"])""",
    "obtain_data_body": 'return b"one record\\n"',
}


def run(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None, input: str = "") -> Done:
    """Run a command to its end."""
    return subprocess.run(
        list(map(str, argv)),
        cwd=cwd,
        env={**ENVIRONMENT, **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
        input=input,
    )


def do(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """The standard output of a command that has to succeed."""
    done = run(*argv, cwd=cwd, env=env)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}\n{done.stdout}{done.stderr}"
    return done.stdout


def uv(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """The output of uv, whose caches make the tests fast."""
    return do(sys.executable, "-m", "uv", *argv, cwd=cwd, env=env)


def make_venv(directory: Path, *packages: str, on: str = sys.executable) -> Path:
    """The Python of a new virtual environment with these packages."""
    uv("venv", "-q", "--python", on, directory, cwd=directory.parent)
    uv("pip", "install", "-q", "--python", directory / "bin/python", *packages, cwd=directory.parent)
    return directory / "bin/python"


def find_python(version: str) -> str:
    """The path of a Python like 3.12; skips where there is none."""
    done = run(sys.executable, "-m", "uv", "python", "find", "--no-project", version, cwd=Path.cwd())
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(
        f"versions/{version}.*/bin/python"
    )
    python = done.stdout.strip() if done.returncode == 0 else str(next(pyenv, ""))
    return python or pytest.skip(f"there is no Python {version}")


def git(directory: Path, *argv: str | Path) -> str:
    """The output of git."""
    identity = ("-c", "user.name=n6", "-c", "user.email=n6@example.org", "-c", "init.defaultBranch=main")
    return do("git", *identity, *argv, cwd=directory)


def commit_all(directory: Path, message: str) -> None:
    """Commit everything in a directory, which becomes a repository."""
    git(directory, "init", "-q")
    git(directory, "add", "-A")
    git(directory, "commit", "-q", "-m", message)


def blocks_in(markdown: str) -> list[str]:
    """The fenced blocks that name no language: commands."""
    fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", markdown, re.DOTALL | re.MULTILINE)
    return [block for language, block in fenced if not language]


def files_in(directory: Path) -> set[str]:
    """The files in a directory, without those of tools."""
    paths = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return {str(path) for path in paths if not NOT_OURS & set(path.parts)}


def replace(path: Path, *pairs: tuple[str, str]) -> None:
    """Replace text that must be in a file."""
    text = path.read_text()
    for old, new in pairs:
        assert old in text, f"{path}: {old}"
        text = text.replace(old, new)
    path.write_text(text)


class Project:
    """A baked project; with `env` its tools find the runtime, `output` is what cookiecutter printed."""

    def __init__(self, path: Path, env: dict[str, str] | None = None, output: str = "") -> None:
        self.path, self.env, self.output = path, env or {}, output
        self.name = path.name
        self.collector = path / "src" / path.name / "collector.py"

    def read(self, name: str) -> str:
        """The text of one of its files."""
        return (self.path / name).read_text()

    def files(self) -> set[str]:
        """Its files, without the vendored runtime's."""
        return {name for name in files_in(self.path) if not name.startswith("vendor/")}

    def tox(self, *argv: str, **env: str) -> str:
        """Run its tox, which must be green."""
        return do(sys.executable, "-m", "tox", "run", *argv, cwd=self.path, env={**self.env, **env})

    @property
    def paths(self) -> dict[str, str]:
        """The environment in which this Python imports it."""
        return {"PYTHONPATH": f"{self.path}/src:{ROOT}/runtime/src", "HOME": str(self.path.parent)}

    def pytest(self) -> Done:
        """Run its tests in this environment."""
        options = ("-q", "-rfs", "-p", "no:cacheprovider")
        return run(sys.executable, "-m", "pytest", *options, cwd=self.path, env=self.paths)

    def run(self, *argv: str) -> str:
        """Run its command in this environment, with the configuration in `etc`; it has to succeed."""
        start = f"from {self.name}.collector import {class_name(self.name)} as C; C.run_script()"
        return do(sys.executable, "-c", start, "--config", "etc", *argv, cwd=self.path, env=self.paths)

    def fill_in(self, **methods: str) -> None:
        """Write the methods that are to be written."""
        text = self.collector.read_text()
        if "BaseSimpleEmailCollector" in text:
            methods = {"obtain_data_body": "return self.get_email_msg_text().encode()", **methods}
        for method, body in {**FILLED_IN, **methods}.items():
            raising = rf"(    def {method}\((?:(?!    def ).|\n)*?)        raise NotFilledInError.*\n"
            code = indent(body, " " * 8) + "\n"
            text = re.sub(raising, lambda match, code=code: match[1] + code, text)  # type: ignore[misc]
        assert "raise NotFilledInError" not in text
        text = text.replace("import NotFilledInError, ", "import ")
        text = re.sub(r"(    NotFilledInError,|from n6_stateful import NotFilledInError)\n", "", text)
        imports = "".join(f"import {name}\n" for name in ("json", "urllib.request") if f"{name}." in text)
        self.collector.write_text(
            text.replace("from typing", f"{imports}from typing", 1) if imports else text
        )


Bake = Callable[..., Project]


def call_cookiecutter(
    directory: Path,
    *argv: str | Path,
    template: Path | str = ROOT,
    executable: str | Path = sys.executable,
    env: dict[str, str] | None = None,
    input: str = "",
) -> Done:
    """Run cookiecutter in `directory`, without the user's defaults, and leave nothing elsewhere."""
    home = directory / ".home"
    home.mkdir(exist_ok=True)
    config = home / "cookiecutter.yaml"
    config.write_text(f"cookiecutters_dir: {home}/clones\nreplay_dir: {home}/replay\n")
    return run(
        executable, "-m", "cookiecutter", "--config-file", config, template, *argv,
        cwd=directory, env={"HOME": str(home), "TMPDIR": str(home), **(env or {})}, input=input,
    )  # fmt: skip


def words(answers: dict[str, str]) -> list[str]:
    """Answers as the command line has them."""
    return [f"{name}={value}" for name, value in answers.items()]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository in place of the one on GitHub: this one as it is now, tagged v0.1.0. Beside it is a
    clone, without `.git` in its name."""
    source = tmp_path_factory.mktemp("repository") / "n6-stateful"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_OURS, "*.egg-info"))
    commit_all(source, "Everything")
    git(source, "tag", "v0.1.0")
    git(source, "remote", "add", "origin", REPOSITORY)
    git(source, "clone", "-q", "--bare", ".", source.with_suffix(".git"))
    return source.with_suffix(".git")


@pytest.fixture(scope="session")
def published(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the runtime is on an index, and in the repository that its users name."""
    index = tmp_path_factory.mktemp("index")
    uv("build", "-q", "--wheel", "-o", index, ROOT / "runtime", cwd=index)
    return {
        "UV_FIND_LINKS": str(index),
        "PIP_FIND_LINKS": str(index),
        "UV_NO_GITHUB_FAST_PATH": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{repository.with_suffix('')}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
        "TOX_OVERRIDE": "testenv.pass_env+=GIT_CONFIG_*",
    }


@pytest.fixture(scope="session")
def baked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """`baked(**answers)`: the project with these answers, made once; nobody may change it."""
    projects: dict[frozenset[tuple[str, str]], Project] = {}

    def make(**answers: str) -> Project:
        key = frozenset(answers.items())
        if key not in projects:
            directory = tmp_path_factory.mktemp("bake")
            from_git = answers.get("runtime_source") == "git"
            template = request.getfixturevalue("repository").with_suffix("") if from_git else ROOT
            done = call_cookiecutter(directory, "--no-input", *words(answers), template=template)
            assert done.returncode == 0, done.stdout + done.stderr
            env = (
                request.getfixturevalue("published")
                if answers.get("runtime_source", "vendored") != "vendored"
                else {}
            )
            projects[key] = Project(directory / answers.get("collector_name", "my_feed"), env, done.stdout)
        return projects[key]

    return make


@pytest.fixture
def bake(baked: Bake, tmp_path: Path) -> Bake:
    """`bake(**answers)`: a copy of that project in `tmp_path`, to be changed."""

    def make(**answers: str) -> Project:
        project = baked(**answers)
        path = tmp_path / project.name
        shutil.copytree(project.path, path, ignore=shutil.ignore_patterns(*NOT_OURS))
        return Project(path, project.env, project.output)

    return make


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[FeedServer]:
    """A server on this machine, with one row of one record."""
    file = tmp_path / "feed.csv"
    file.write_text("2026-01-01 00:00:00,one row\n")
    with serving(file) as server:
        yield server
