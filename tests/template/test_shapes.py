"""Each answer to `shape` gives a collector that its owner only has to fill in."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.template.conftest import Bake, do, run
from tests.template.feed import Feed

SHAPES = ["download", "rows", "items", "pages", "list", "email"]
# What is left to be written if the download is.
LEFT = {"rows": ["pick_raw_row_time", "clean_row_time"], "items": ["item_key"], "list": []}


@pytest.mark.parametrize("shape", SHAPES)
def test_filled_in(shape: str, bake: Bake) -> None:
    """Once its holes are filled in, all its tests run, and are green."""
    project = bake(shape=shape, collector_name=f"my_{shape}")
    project.fill_in()
    said = project.tox("-e", "tests,lint,types")
    assert re.search(r"= \d passed, 1 skipped in", said)  # the one against RabbitMQ


@pytest.mark.parametrize("shape", LEFT)
def test_http(shape: str, bake: Bake, feed: Feed, tmp_path: Path) -> None:
    """With `download = http`, what a record's time or key is is all that is left to write."""
    project = bake(shape=shape, download="http", url=feed.url("rows" if shape == "rows" else "plain"))
    text = project.collector.read_text()
    assert re.findall(r"raise NotFilledInError.*\.(\w+)\(\)", text) == LEFT[shape]
    if LEFT[shape]:
        project.fill_in()
    project.tox("-e", "tests,lint,types")
    command = (project.install(tmp_path / "venv"), "--config", "etc")
    env = {"HOME": str(tmp_path)}
    assert "published 1 message" in do(*command, cwd=project.path, env=env)
    assert "published 0 messages" in do(*command, cwd=project.path, env=env)


def test_sample_of_pages(bake: Bake) -> None:
    """The sample in `download_page` works as it stands, and a generated test fails if it is wrong."""
    project = bake(shape="pages", download="http")
    text = re.sub(r"^( +)# ", r"\1", project.collector.read_text(), flags=re.MULTILINE)
    text = re.sub(r" +raise NotFilledInError.*\n", "", text).replace("NotFilledInError", "SourceError")
    project.collector.write_text(text)
    assert "= 4 passed, 1 skipped in" in project.tox("-e", "tests,lint,types")
    project.collector.write_text(text.replace('answer["next"]', "cursor"))
    done = run(sys.executable, "-m", "tox", "run", "-e", "tests", cwd=project.path)
    assert "FAILED tests/test_collector.py::test_download_page" in done.stdout
    assert "1 failed" in done.stdout


def test_email(bake: Bake, tmp_path: Path) -> None:
    """A mail on standard input is published."""
    project = bake(shape="email")
    project.fill_in()
    command = project.install(tmp_path / "venv")
    (tmp_path / "mail.eml").write_text("From: reports@feed.example\nSubject: A report\n\none record\n")
    line = f"{command} --config etc < {tmp_path}/mail.eml"
    said = do("sh", "-c", line, cwd=project.path, env={"HOME": str(tmp_path)})
    assert "published 1 message" in said
