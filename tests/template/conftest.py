"""Bakes projects with the cookiecutter command, as a user does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.template.feed import Feed, serving

ROOT = Path(__file__).resolve().parents[2]
ALL_BAKES = bool(os.environ.get("N6_STATEFUL_ALL_BAKES"))
REPOSITORY = "https://github.com/org/n6-stateful"
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("TOX_", "VIRTUAL_ENV", "COVERAGE_", "PYTEST_", "UV_PYTHON", "N6_"))
} | {"UV_PYTHON_DOWNLOADS": "never"}
WORK_OF_TOOLS = {".git", ".tox", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__", "venv"}

Done = subprocess.CompletedProcess[str]
Cookiecutter = Callable[..., Done]

FILLED_IN = {
    "_download": """\
        now = "2026-01-02T00:00:00"
        if only_newer_than is not None and only_newer_than >= now:
            return None
        return Download(b"one record", time_utc=now)
""",
    "obtain_orig_data": """\
        return b"2026-01-01 00:00:00,one row\\n"
""",
    "pick_raw_row_time": """\
        return row.partition(",")[0]
""",
    "clean_row_time": """\
        return raw_row_time
""",
    "obtain_items": """\
        return ["an item"]
""",
    "item_key": """\
        return str(item)
""",
    "download_page": """\
        return Page([] if cursor else ["a record"], 1, False)
""",
    "obtain_data_body": """\
        return b"one record\\n"
""",
}


def run(
    *argv: str | Path, cwd: Path, env: dict[str, str] | None = None, timeout: float = 300, input: str = ""
) -> Done:
    """Run a command to its end and keep what it says."""
    return subprocess.run(
        list(map(str, argv)),
        cwd=cwd,
        env={**ENVIRONMENT, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        input=input,
    )


def do(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """What a command says on standard output that has to succeed."""
    done = run(*argv, cwd=cwd, env=env)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}\n{done.stdout}{done.stderr}"
    return done.stdout


def uv(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """What uv says, whose caches make the tests fast."""
    return do(sys.executable, "-m", "uv", *argv, cwd=cwd, env=env)


def blocks_in(markdown: str) -> list[str]:
    """The fenced blocks that name no language: commands."""
    fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", markdown, re.DOTALL | re.MULTILINE)
    return [block for language, block in fenced if not language]


def files_in(directory: Path) -> set[str]:
    """The files in a directory, but for what tools leave there."""
    paths = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return {str(path) for path in paths if not WORK_OF_TOOLS & set(path.parts)}


class Project:
    """A baked project.

    Args:
        path: where it is.
        env: what the environment of its tools needs, so that they find the runtime.

    Attributes:
        name: the collector's.
        said: what cookiecutter said when it was baked.
        path: where it is.
        env: environment variables for its tools.
    """

    def __init__(self, path: Path, env: dict[str, str], said: str = "") -> None:
        self.path = path
        self.env = env
        self.said = said
        self.name = path.name
        self.collector = path / "src" / path.name / "collector.py"

    def files(self) -> set[str]:
        """Its files, without the vendored runtime's."""
        return {name for name in files_in(self.path) if not name.startswith("vendor/")}

    def tox(self, *argv: str, **env: str) -> str:
        """Run its tox, which must be green."""
        return do(sys.executable, "-m", "tox", "run", *argv, cwd=self.path, env={**self.env, **env})

    def install(self, venv: Path, *, python: str | Path = sys.executable) -> Path:
        """Install it into a virtual environment as its README does; the path of its command."""
        vendored = self.path / "vendor/n6-stateful-runtime"
        if not venv.exists():
            uv("venv", "-q", "--python", python, venv, cwd=self.path)
        what = [vendored, self.path] if vendored.exists() else [self.path]
        uv("pip", "install", "-q", "--python", venv / "bin/python", *what, cwd=self.path, env=self.env)
        (command,) = (venv / "bin").glob("n6collector_*")
        return command

    def fill_in(self) -> None:
        """Write the methods that are to be written, as their owner would."""
        text = self.collector.read_text()
        filled_in = FILLED_IN.copy()
        if "BaseSimpleEmailCollector" in text:
            filled_in["obtain_data_body"] = "        return self.get_email_msg_text().encode()\n"
        for method, body in filled_in.items():
            raising = rf"(    def {method}\((?:(?!    def ).|\n)*?)        raise NotFilledInError.*\n"
            text = re.sub(raising, lambda found, body=body: found[1] + body, text)  # type: ignore[misc]
        assert "raise NotFilledInError" not in text
        text = text.replace("import NotFilledInError, ", "import ")
        text = re.sub(r"(    NotFilledInError,|from n6_stateful import NotFilledInError)\n", "", text)
        self.collector.write_text(text)


Bake = Callable[..., Project]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands for the repository on GitHub: this one as it is now, tagged v0.1.0."""
    source = tmp_path_factory.mktemp("repository") / "n6-stateful"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*WORK_OF_TOOLS, ".venv", "*.egg-info"))
    git(source, "init", "-q")
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "Everything")
    git(source, "tag", "v0.1.0")
    git(source, "remote", "add", "origin", REPOSITORY)
    bare = source.with_suffix(".git")
    git(source, "clone", "-q", "--bare", ".", bare)
    return bare


def git(directory: Path, *argv: str | Path) -> str:
    """What git says."""
    identity = ("-c", "user.name=n6", "-c", "user.email=n6@example.org", "-c", "init.defaultBranch=main")
    return do("git", *identity, *argv, cwd=directory)


@pytest.fixture(scope="session")
def published(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the runtime is on an index, and the repository where its users find it."""
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


def call_cookiecutter(
    directory: Path,
    *argv: str | Path,
    template: Path | str = ROOT,
    executable: str | Path = sys.executable,
    env: dict[str, str] | None = None,
    input: str = "",
) -> Done:
    """Run the command in `directory`, with nothing of the user's own defaults, and nothing left elsewhere."""
    home = directory / ".home"
    home.mkdir(exist_ok=True)
    config = home / "cookiecutter.yaml"
    config.write_text(f"cookiecutters_dir: {home}/clones\nreplay_dir: {home}/replay\n")
    return run(
        executable, "-m", "cookiecutter", "--config-file", config, template, *argv,
        cwd=directory, env={"HOME": str(home), "TMPDIR": str(home), **(env or {})}, input=input,
    )  # fmt: skip


def words(answers: dict[str, str]) -> list[str]:
    """Answers as the command line takes them."""
    return [f"{name}={value}" for name, value in answers.items()]


@pytest.fixture
def cookiecutter(tmp_path: Path) -> Cookiecutter:
    """The command in an empty directory, with answers as keyword arguments, and no questions."""

    def call(*options: str | Path, **answers: str) -> Done:
        return call_cookiecutter(tmp_path, "--no-input", *options, *words(answers))

    return call


@pytest.fixture(scope="session")
def bake_in(repository: Path, published: dict[str, str]) -> Bake:
    """`bake_in(directory, **answers)`: a new project there."""

    def make(directory: Path, **answers: str) -> Project:
        source = answers.get("runtime_source", "vendored")
        template = repository.with_suffix("") if source == "git" else ROOT
        done = call_cookiecutter(directory, "--no-input", *words(answers), template=template)
        assert done.returncode == 0, done.stderr
        env = {} if source == "vendored" else published
        return Project(directory / answers.get("collector_name", "my_feed"), env, done.stdout)

    return make


@pytest.fixture
def bake(bake_in: Bake, tmp_path: Path) -> Bake:
    """A new project with these answers."""

    def make(**answers: str) -> Project:
        return bake_in(tmp_path, **answers)

    return make


@pytest.fixture
def feed() -> Iterator[Feed]:
    """A server on this machine."""
    with serving() as feed:
        yield feed


@pytest.fixture
def feed_url(feed: Feed) -> str:
    """A page that is as it should be."""
    return feed.url("plain")
