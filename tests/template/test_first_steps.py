"""The user's path: what the hook and the README say comes next is so, line by line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.template.conftest import ALL_BAKES, ROOT, Bake, Project, blocks_in, do, git, run


@pytest.fixture
def project(bake: Bake) -> Project:
    return bake()


def test_not_filled_in(project: Project, tmp_path: Path) -> None:
    """A download that is not filled in is told in one line."""
    command = project.install(tmp_path / "venv")
    done = run(
        command, "--config", "etc", "--log-level", "error", cwd=project.path, env={"HOME": str(tmp_path)}
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "fill in MyFeedCollector._download()" in line
    assert "src/my_feed/collector.py" in line or "site-packages/my_feed/collector.py" in line


def test_filled_in(project: Project, tmp_path: Path) -> None:
    """A collector that is filled in publishes once, and its tests are green."""
    project.fill_in()
    project.tox()
    command = project.install(tmp_path / "venv")
    env = {"HOME": str(tmp_path), "N6_CONFIG": str(project.path / "etc")}
    said = [
        do(command, *argv, cwd=project.path, env=env)
        for argv in ([], [], ["state", "show"], ["spool", "list"])
    ]
    assert said[0].startswith("published 1 message (10 bytes) to the spool")
    assert said[1].startswith("published 0 messages")
    assert "{'last_utc': '2026-01-02T00:00:00'}" in said[2]
    assert "1 message (10 bytes) in the spool" in said[3]


def test_readme_example(project: Project) -> None:
    """The example in the README is green with what is said beside it."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = re.sub(r"    def _download\(.*", lambda _: example, project.collector.read_text(), flags=re.DOTALL)
    code = code.replace("    NotFilledInError,\n", "").replace("from n6_", "import requests\nfrom n6_", 1)
    project.collector.write_text(code)
    insert(project.path / "pyproject.toml", "dependencies = [\n", '    "requests >=2.32,<3",\n')
    insert(project.path / "pyproject.toml", "types = [\n", '    "types-requests",\n')
    project.tox()


def test_any_path(bake_in: Bake, tmp_path: Path) -> None:
    """tox works wherever the project is."""
    place = tmp_path / """it's a "path" \\ of mine"""
    place.mkdir()
    bake_in(place).tox("-e", "tests,types")


def test_configuration(project: Project) -> None:
    """The generated tests fail when the configuration does not fit the collector's code."""
    config = project.path / "etc/60_my_feed.conf"
    config.write_text(config.read_text().replace("url =", "address ="))
    done = run(sys.executable, "-m", "tox", "run", "-e", "tests", cwd=project.path)
    assert done.returncode == 1
    assert "FAILED tests/test_collector.py::test_configuration" in done.stdout


def test_secrets(project: Project, tmp_path: Path) -> None:
    """A key in etc/99_secrets.conf is used here, is unknown to git, and is not needed by the tests."""
    project.collector.write_text(
        project.collector.read_text().replace("url :: str\n", "url :: str\n        api_key :: str\n")
    )
    secrets = project.path / "etc/99_secrets.conf"
    secrets.write_text("[my_feed]\napi_key = hidden\n")
    tests = project.path / "tests/test_collector.py"
    tests.write_text(
        tests.read_text().replace('.conf").read_text()', '.conf").read_text() + "api_key = test\\n"')
    )
    git(project.path, "init", "-q")
    git(project.path, "add", "-A")
    assert "secrets" not in git(project.path, "ls-files")
    command = project.install(tmp_path / "venv")
    env = {"HOME": str(tmp_path)}
    assert "configuration: ok" in do(command, "check", "--config", "etc", cwd=project.path, env=env)
    secrets.unlink()
    project.tox()


@pytest.mark.parametrize(
    ("download", "runtime_source"),
    [("fill in", "vendored"), ("http", "index"), *[("http", "vendored"), ("fill in", "index")] * ALL_BAKES],
)
def test_printed_steps(download: str, runtime_source: str, bake: Bake, tmp_path: Path, feed_url: str) -> None:
    """The steps that the hook prints work line by line."""
    project = bake(download=download, runtime_source=runtime_source, url=feed_url)
    enter, *steps = [line.strip() for line in project.said.splitlines() if line.startswith("  ")]
    assert enter == "cd my_feed"
    env = {**project.env, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    for step in steps:
        if step == "# now fill in _download() in src/my_feed/collector.py, and run tox again":
            project.fill_in()
            step = "tox"
        do("bash", "-euc", f"{enter}\n{step}", cwd=tmp_path, env=env)
    assert len(steps) < 7


@pytest.mark.parametrize("runtime_source", ["vendored", "git"])
def test_readme_commands(runtime_source: str, bake: Bake, tmp_path: Path, feed_url: str) -> None:
    """The commands in the README work as they stand."""
    project = bake(runtime_source=runtime_source, download="http", url=feed_url)
    first, *_ = blocks_in((project.path / "README.md").read_text())
    env = {**project.env, "HOME": str(tmp_path)}
    said = do("bash", "-euc", first, cwd=project.path, env=env)
    assert "published 1 message" in said
    assert "published 0 messages" in said
    assert "1 message" in said.splitlines()[-1]


SHAPES = {
    "urlhaus": "rows",
    "dataplane": "rows",
    "taxii": "pages",
    "defacements": "items",
    "misp": "items",
    "shadowserver": "email",
}


@pytest.mark.parametrize("example", SHAPES)
def test_examples(example: str, bake: Bake, tmp_path: Path) -> None:
    """Its class stands where the template has that of its shape, and fits the configuration that is there."""
    shape = SHAPES[example]
    project = bake(collector_name=example, shape=shape, download="fill in" if shape == "email" else "http")
    text = (ROOT / "examples" / example / "collector.py").read_text()
    project.collector.write_text(text[: text.index("\n\nif __name__")])
    if shape == "email":  # it follows a link in the mail, and keeps nothing
        insert(project.path / "pyproject.toml", "dependencies = [\n", '    "requests",\n    "stamina",\n')
        for config in (project.path / "etc").glob("*.conf"):
            config.write_text(re.sub("^cache_dir.*\n", "", config.read_text(), flags=re.MULTILINE))
    project.tox("-e", "lint,types")
    command = project.install(tmp_path / "venv")
    env = {"HOME": str(tmp_path)}
    assert "configuration: ok" in do(command, "check", "--config", "etc", cwd=project.path, env=env)


def insert(path: Path, after: str, *lines: str) -> None:
    """Add lines to a file."""
    begin, found, end = path.read_text().partition(after)
    assert found, path
    path.write_text(begin + found + "".join(lines) + end)
