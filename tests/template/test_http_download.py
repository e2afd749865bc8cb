"""`download = http`, from a server that does what servers do; `tests/bases/test_http.py` has the rest."""

from __future__ import annotations

import json
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
    return bake_in(directory, download="http").install(directory / "venv")


@pytest.fixture
def collecting(command: Path, feed: Feed, tmp_path: Path) -> Collecting:
    return Collecting(command, tmp_path, feed)


def test_etag(collecting: Collecting, feed: Feed) -> None:
    """A page with an ETag is published once until it changes."""
    taken = [collecting.take("etag") for _ in range(4)]
    assert taken == [b'version "1"', None, b'version "2"', None]
    assert [headers.get("If-None-Match") for _, headers in feed.requests] == [None, '"1"', '"1"', '"2"']


def test_last_modified(collecting: Collecting, feed: Feed) -> None:
    """A page with a date is asked for by it."""
    assert [collecting.take("dated") for _ in range(2)] == [b"dated", None]
    assert feed.requests[1][1]["If-Modified-Since"] == "Thu, 01 Jan 2026 00:00:00 GMT"


def test_no_conditions(collecting: Collecting) -> None:
    """A page of a server that knows no conditions is published once as well."""
    assert [collecting.take("plain") for _ in range(2)] == [b"one record\n", None]


@pytest.mark.parametrize(
    ("word", "body"), [("busy", b"after all"), ("moved", b"one record\n"), ("gzip", b"unpacked")]
)
def test_what_passes_is_borne(word: str, body: bytes, collecting: Collecting) -> None:
    """An error that passes, a redirect and an encoding are no matter."""
    assert collecting.take(word) == body


def test_bytes(collecting: Collecting) -> None:
    """Bytes are published as they are, whatever charset is claimed."""
    assert collecting.run("charset").returncode == 0
    (line,) = collecting.run("charset", "spool", "list", "--json").stdout.splitlines()
    assert json.loads(line)["size"] == len("zażółć".encode("iso-8859-2"))


@pytest.mark.parametrize(("word", "told"), [("missing", "404"), ("empty", "empty body")])
def test_errors(word: str, told: str, collecting: Collecting) -> None:
    """What does not pass is one clear line, and leaves the state."""
    collecting.take("plain")
    before = collecting.state()
    done = collecting.run(word, "--log-level", "error")
    assert done.returncode == 66
    (line,) = done.stderr.splitlines()
    assert told in line
    assert collecting.state() == before
