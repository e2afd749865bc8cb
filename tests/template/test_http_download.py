"""`download = http`, from a server that does what servers do."""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path

import pytest

from tests.template.conftest import Bake, Done, run
from tests.template.feed import Feed


class Collecting:
    """An installed collector, whose URL each run is told."""

    def __init__(self, command: Path, directory: Path, feed: Feed) -> None:
        self._command = command
        self._directory = directory
        self._feed = feed

    def run(self, word: str, *argv: str) -> Done:
        """Run it against one of the feed's answers."""
        config = self._directory / "60_test.conf"
        config.write_text(
            f"[my_feed]\nsource = my-provider\ncache_dir = {self._directory}/cache\n"
            f"url = {self._feed.url(word)}?key=secret\n[output]\nurl = spool:{self._directory}/spool\n"
        )
        done = run(self._command, "--config", config, *argv, cwd=self._directory)
        assert "secret" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def take(self, word: str) -> bytes | None:
        """The body that a good run has published; None if it has published nothing."""
        before = self.run(word, "spool", "list", "--json").stdout.splitlines()
        done = self.run(word)
        assert done.returncode == 0, done.stderr
        new = self.run(word, "spool", "list", "--json").stdout.splitlines()[len(before) :]
        assert f"published {len(new)} message" in done.stdout
        if not new:
            return None
        message_id = json.loads(new[0])["properties"]["message_id"]
        return self.run(word, "spool", "show", message_id).stdout.encode("utf-8", "surrogateescape")

    def state(self) -> str:
        """The state, as `state show` has it."""
        return self.run("plain", "state", "show").stdout.partition("\n\n")[2]


@pytest.fixture(scope="module")
def command(bake_in: Bake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("http")
    project = bake_in(directory, download="http")
    text, count = re.subn(r"TIMEOUT = \(10, 60\)", "TIMEOUT = (1, 0.5)", project.collector.read_text())
    assert count == 1
    project.collector.write_text(text)
    return project.install(directory / "venv")


@pytest.fixture
def collecting(command: Path, feed: Feed, tmp_path: Path) -> Collecting:
    return Collecting(command, tmp_path, feed)


def test_a_page_with_an_etag_is_published_once_until_it_changes(collecting: Collecting, feed: Feed) -> None:
    taken = [collecting.take("etag") for _ in range(4)]
    assert taken == [b'version "1"', None, b'version "2"', None]
    assert [headers.get("If-None-Match") for _, headers in feed.requests] == [None, '"1"', '"1"', '"2"']


def test_a_page_with_a_date_is_asked_for_by_it(collecting: Collecting, feed: Feed) -> None:
    assert [collecting.take("dated") for _ in range(2)] == [b"", None]
    assert feed.requests[1][1]["If-Modified-Since"] == "Thu, 01 Jan 2026 00:00:00 GMT"


def test_a_page_of_a_server_that_knows_no_conditions_is_published_once(collecting: Collecting) -> None:
    assert [collecting.take("plain") for _ in range(2)] == [b"one record\n", None]


@pytest.mark.parametrize(
    ("word", "body"),
    [
        ("busy", b"after all"),
        ("moved", b"one record\n"),
        ("truncated_once", b"all of it"),
        ("slow_once", b"at last"),
        ("gzip", b"unpacked"),
    ],
)
def test_what_passes_is_borne(word: str, body: bytes, collecting: Collecting) -> None:
    assert collecting.take(word) == body


def test_bytes_are_published_as_they_are_whatever_charset_is_claimed(collecting: Collecting) -> None:
    body = "zażółć".encode("iso-8859-2")
    assert collecting.run("charset").returncode == 0
    (line,) = collecting.run("charset", "spool", "list", "--json").stdout.splitlines()
    assert json.loads(line)["size"] == len(body)


@pytest.mark.parametrize(
    ("word", "told", "tries"),
    [
        ("missing", "404 Client Error", 1),
        ("never", "503 Server Error", 4),
        ("truncated", "IncompleteRead(10 bytes read, 10 more expected)", 4),
        ("slow", "Read timed out", 4),
        ("circle", "30 redirects", None),
        ("no_gzip", "failed to decode it", 1),
    ],
)
def test_what_does_not_pass_is_one_clear_error_and_leaves_the_state(
    word: str, told: str, tries: int | None, collecting: Collecting, feed: Feed
) -> None:
    collecting.take("plain")
    before = collecting.state()
    feed.requests.clear()
    done = collecting.run(word, "--log-level", "warning")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert told in line
    assert line.endswith("nothing was published")
    assert collecting.state() == before
    assert tries is None or len(feed.requests) == tries


def test_200_mib_are_taken_in_seconds(collecting: Collecting, tmp_path: Path) -> None:
    done = collecting.run("big")
    assert "published 1 message (200.0 MiB)" in done.stdout
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"peak memory: {peak:.0f} MiB; {done.stdout}")
    assert peak < 800
    (tmp_path / "spool").unlink()
