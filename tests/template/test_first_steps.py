"""The user's path: what cookiecutter and the generated README say comes next works, for every shape."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from examples.feed_server import FeedServer
from tests.template.conftest import ROOT, SHAPES, Bake, Project, blocks_in, commit_all, do, git, replace

EXAMPLES = {
    "urlhaus": "rows",
    "dataplane": "rows",
    "taxii": "pages",
    "defacements": "feed",
    "misp": "items",
    "shadowserver": "email",
}


def write_sample_page(project: Project) -> None:
    """Use the sample in `download_page`."""
    sample = re.compile(r"^( +)# (?=answer|if not|    raise|return)", re.MULTILINE)
    text = sample.sub(r"\1", project.collector.read_text())
    text = re.sub(r" +raise NotFilledInError.*\n", "", text).replace("NotFilledInError", "SourceError")
    project.collector.write_text(text)


class TestShapes:
    """Each answer to `shape` gives a collector that its owner only has to fill in."""

    @pytest.mark.parametrize(
        "shape", ["rows", *(pytest.param(shape, marks=pytest.mark.sweep) for shape in SHAPES)]
    )
    def test_not_filled_in(self, shape: str, baked: Bake) -> None:
        """The tests are green at once, and those that need what is missing name it."""
        project = baked(shape=shape)
        done = project.pytest()
        assert done.returncode == 0, done.stdout + done.stderr
        missing = re.findall(r"raise NotFilledInError.*\.(\w+)\(\)", project.collector.read_text())
        # The samples stand in for the whole download of a list, and a feed needs nothing.
        assert shape in ("list", "feed") or any(f".{name}() in" in done.stdout for name in missing)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_filled_in(self, shape: str, bake: Bake) -> None:
        """Once its methods are written, all its tests run, and are green."""
        project = bake(shape=shape)
        project.fill_in()
        done = project.pytest()
        assert re.search(r"\d passed, 1 skipped in", done.stdout), done.stdout  # the one against RabbitMQ

    @pytest.mark.sweep
    @pytest.mark.parametrize("download", ["fill in", "http"])
    @pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "email"])
    def test_style_and_types(self, shape: str, download: str, bake: Bake) -> None:
        """Lint and types are green once the methods are written, without any exceptions."""
        project = bake(shape=shape, download=download)
        if (shape, download) == ("pages", "http"):
            write_sample_page(project)
        else:
            project.fill_in()
        project.tox()

    def test_http(self, baked: Bake) -> None:
        """With `download = http`, only what is specific to the source is left to write."""
        for shape, left in (
            ("download", []),
            ("rows", ["pick_raw_row_time", "clean_row_time"]),
            ("items", ["item_key"]),
            ("pages", ["download_page"]),
            ("list", []),
        ):
            text = baked(shape=shape, download="http").collector.read_text()
            assert re.findall(r"raise NotFilledInError.*\.(\w+)\(\)", text) == left

    @pytest.mark.sweep
    def test_sample_of_pages(self, bake: Bake) -> None:
        """The sample in `download_page` works as it stands, and a generated test fails if it is wrong."""
        project = bake(shape="pages", download="http")
        write_sample_page(project)
        assert "4 passed, 1 skipped" in project.pytest().stdout
        replace(project.collector, ('answer["next"]', "cursor"))
        assert "FAILED tests/test_download.py::test_download" in project.pytest().stdout

    @pytest.mark.parametrize(
        ("shape", "method", "body", "hint"),
        [
            (
                "download",
                "_download",
                'return Download(b"x", time_utc=1)',
                "replace FIRST, BODIES and SECOND",
            ),
            ("rows", "pick_raw_row_time", 'return row.split(";")[3]', "replace OLD, NEW and BODIES"),
            ("items", "item_key", 'return str(item["id"])', "replace OLD, NEW and BODIES"),
            ("email", "obtain_data_body", "return None", "replace OLD, NEW and BODIES"),
        ],
        ids=["download", "rows", "items", "email"],
    )
    def test_other_samples(self, shape: str, method: str, body: str, hint: str, bake: Bake) -> None:
        """A test that fails because the sample is not the source's says so, and what to replace."""
        project = bake(shape=shape)
        project.fill_in(**{method: body})
        done = project.pytest()
        assert done.returncode == 1
        assert hint in done.stdout
        name = "test_download.py" if shape == "download" else "test_collector.py"
        assert f"replace the samples at the top of tests/{name}" in project.output

    @pytest.mark.sweep
    def test_no_conditions(self, bake: Bake) -> None:
        """With `download = http`, a page of a server that ignores conditions is published once as well."""
        project = bake(download="http")
        answer = ('(304, {"ETag": \'"1"\'}, b"")', '(200, {}, b"one record\\n")')
        replace(project.path / "tests/test_download.py", answer)
        assert " passed, 1 skipped" in project.pytest().stdout

    def test_items_are_lines(self, bake: Bake) -> None:
        """A line of `items` ends at a line feed, and at nothing else."""
        project = bake(shape="items", download="http")
        project.fill_in()
        lines = "one\\x0btwo\\x0cthree\\x85four\\u2028five\\r\\nsix\\n"
        code = (
            "from my_feed.collector import MyFeedCollector as C\n"
            f"C.download_text = lambda self, url: '{lines}'\n"
            "print(C.obtain_items(type('S', (C,), {'__init__': lambda self: None, 'config': {'url': ''}})()))"
        )
        assert do(sys.executable, "-c", code, cwd=project.path, env=project.paths).count("',") == 1

    @pytest.mark.sweep
    @pytest.mark.parametrize("example", EXAMPLES)
    def test_examples(self, example: str, bake: Bake) -> None:
        """An example's class fits the project of its shape: style, types and configuration."""
        shape = EXAMPLES[example]
        project = bake(
            collector_name=example, shape=shape, download="fill in" if shape == "email" else "http"
        )
        text = (ROOT / "examples" / example / "collector.py").read_text()
        project.collector.write_text(text[: text.index("\n\nif __name__")])
        if shape == "email":  # it follows a link in the mail, and keeps nothing
            more = ("dependencies = [\n", 'dependencies = [\n    "requests",\n    "stamina",\n')
            replace(project.path / "pyproject.toml", more)
            replace(project.path / f"etc/60_{example}.conf", ("cache_dir = ~/.n6cache\n", ""))
        project.tox("-e", "lint,types")
        assert "configuration: ok" in project.run("check")


class TestSteps:
    """What is printed and written is followed line by line."""

    def test_readme(self, bake: Bake, tmp_path: Path, feed: FeedServer) -> None:
        """The commands in the README work as they stand."""
        project = bake(download="http", url=feed.url)
        first, *_ = blocks_in(project.read("README.md"))
        text = do("bash", "-euc", first, cwd=project.path, env={"HOME": str(tmp_path)})
        assert "collected 1 message (28 bytes), 1 waiting in the outbox" in text
        assert "collected 0 messages, 1 waiting in the outbox" in text

    @pytest.mark.sweep
    def test_printed_steps(self, bake: Bake, tmp_path: Path, feed: FeedServer) -> None:
        """The steps that cookiecutter prints work line by line."""
        project = bake(shape="rows", download="http", url=feed.url)
        enter, *steps = [line.strip() for line in project.output.splitlines() if line.startswith("  ")]
        assert enter == "cd my_feed"
        assert steps[1].startswith(
            "# write pick_raw_row_time() and clean_row_time() in src/my_feed/collector.py"
        )
        env = {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        for step in steps:
            if step.startswith("# write"):
                project.fill_in()
            do("bash", "-euc", f"{enter}\n{step}", cwd=tmp_path, env=env)
        assert len(steps) < 9

    def test_configuration(self, bake: Bake) -> None:
        """A generated test fails when the configuration does not fit the code."""
        project = bake()
        replace(project.path / "etc/60_my_feed.conf", ("url = https", "address = https"))
        assert "FAILED tests/test_collector.py::test_configuration" in project.pytest().stdout

    @pytest.mark.sweep
    def test_secrets(self, bake: Bake) -> None:
        """A key in etc/99_secrets.conf is used here, is unknown to git, and is not needed by the tests."""
        project = bake(shape="items")
        replace(project.collector, ("url :: str\n", "url :: str\n        api_key :: str\n"))
        secrets = project.path / "etc/99_secrets.conf"
        secrets.write_text("[my_feed]\napi_key = hidden\n")
        tests = project.path / "tests/test_collector.py"
        replace(tests, ('.conf").read_text()', '.conf").read_text() + "api_key = test\\n"'))
        commit_all(project.path, "As it was generated")
        assert "secrets" not in git(project.path, "ls-files")
        assert "configuration: ok" in project.run("check")
        secrets.unlink()
        assert project.pytest().returncode == 0

    @pytest.mark.sweep
    def test_any_path(self, baked: Bake, tmp_path: Path) -> None:
        """tox works wherever the project is."""
        place = tmp_path / """it's a "path" \\ of mine"""
        shutil.copytree(baked().path, place / "my_feed")
        Project(place / "my_feed").tox("-e", "tests,types")

    @pytest.mark.sweep
    def test_readme_of_the_repository(self, bake: Bake) -> None:
        """The example in the repository's README is green with the changes described there."""
        project = bake()
        (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        text = re.sub(
            r"    def _download\(.*", lambda _: example, project.collector.read_text(), flags=re.DOTALL
        )
        text = text.replace("    NotFilledInError,\n", "").replace("from n6_", "import requests\nfrom n6_", 1)
        project.collector.write_text(text)
        replace(
            project.path / "pyproject.toml",
            ("dependencies = [\n", 'dependencies = [\n    "requests >=2.32,<3",\n'),
            ("types = [\n", 'types = [\n    "types-requests",\n'),
        )
        project.tox()
