"""The examples, over feeds that grow, through their console commands into a spool: each record once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from examples.dataplane import make_feed as dataplane_feed
from examples.feed_server import FeedServer, serving
from examples.urlhaus import make_feed as urlhaus_feed
from n6_stateful.output.spool import Spool

EXAMPLES = Path(urlhaus_feed.__file__).parents[1]


class Example(NamedTuple):
    """One example, set up to run over its feed."""

    name: str
    directory: Path
    server: FeedServer
    make_feed: Callable[[int, int], bytes]

    def show(self, feed: bytes) -> None:
        """Let the source show `feed`."""
        self.server.file.write_bytes(feed)
        # Last-Modified has seconds; a feed that changes twice in one would look unchanged.
        stamp = getattr(self.server, "stamp", 1_700_000_000) + 10
        self.server.stamp = stamp  # type: ignore[attr-defined]
        os.utime(self.server.file, (stamp, stamp))

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run the collector once."""
        return subprocess.run(
            [sys.executable, EXAMPLES / self.name / "collector.py", "--config", self.directory / "60.conf"],
            capture_output=True,
            text=True,
            timeout=60,
        )

    def run_well(self) -> str:
        """Run the collector once, without error; what it logs."""
        done = self.run()
        assert done.returncode == 0, done.stderr
        return done.stderr

    def published(self) -> list[bytes]:
        """Every record published so far, in order."""
        spool = Spool(self.directory / "spool")
        return [line for spooled in spool.messages() for line in spooled.message.body.splitlines()]


def records(feed: bytes) -> list[bytes]:
    return [line for line in feed.splitlines() if line and not line.startswith(b"#")]


@pytest.fixture(params=["urlhaus", "dataplane"])
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Example]:
    name: str = request.param
    make_feed = {"urlhaus": urlhaus_feed.feed, "dataplane": dataplane_feed.feed}[name]
    with serving(tmp_path / "feed") as server:
        (tmp_path / "60.conf").write_text(
            f"[{name}]\nsource = example\ncache_dir = {tmp_path}/cache\nurl = {server.url}\n"
            f"[output]\nurl = spool:{tmp_path}/spool\n"
        )
        yield Example(name, tmp_path, server, make_feed)


def test_the_feed_files_are_what_their_scripts_make() -> None:
    assert (EXAMPLES / "urlhaus/feed.csv").read_bytes() == urlhaus_feed.feed(0, 1200)
    assert (EXAMPLES / "dataplane/feed.txt").read_bytes() == dataplane_feed.feed(0, 1400)


def test_each_record_of_a_growing_feed_is_published_once(example: Example) -> None:
    for end in (1000, 1000, 1001, 1004, 1004, 1300):
        example.show(example.make_feed(0, end))
        example.run_well()
    published = example.published()
    assert len(published) == len(set(published))
    assert set(published) == set(records(example.make_feed(0, 1300)))


def test_what_rotates_out_of_the_feed_is_not_missed_and_not_taken_again(example: Example) -> None:
    for begin, end in ((0, 100), (50, 150), (0, 150), (140, 240)):
        example.show(example.make_feed(begin, end))
        example.run_well()
    published = example.published()
    assert len(published) == len(set(published)) == 240


def test_lines_that_are_no_records_are_left_out_and_told(example: Example) -> None:
    good = example.make_feed(0, 10)
    example.show(good + b"\r\n<html>502 Bad Gateway</html>\r\n")
    assert "no record, left out" in example.run_well()
    assert set(example.published()) == set(records(good))


def test_errors_that_pass_are_tried_again(example: Example) -> None:
    example.show(example.make_feed(0, 10))
    example.server.faults = [500, 503]
    example.run_well()
    assert len(example.published()) == 10


@pytest.mark.parametrize("faults", [[404], ["cut"] * 4, [500] * 4], ids=["404", "cut off", "500"])
def test_errors_that_stay_are_one_clear_line_and_the_next_run_takes_everything(
    example: Example, faults: list[int | str]
) -> None:
    example.show(example.make_feed(0, 10))
    example.server.faults = list(faults)
    done = example.run()
    assert done.returncode == 1
    assert "could not be downloaded" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    example.server.faults = []
    example.run_well()
    assert len(example.published()) == 10


@pytest.mark.parametrize("example", ["urlhaus"], indirect=True)
def test_urlhaus_tells_when_records_may_have_been_missed(example: Example) -> None:
    for begin, end in ((0, 10), (20, 30)):
        example.show(example.make_feed(begin, end))
        log = example.run_well()
    assert "may be missed" in log
    assert len(example.published()) == 20


@pytest.mark.parametrize("example", ["dataplane"], indirect=True)
def test_dataplane_takes_records_that_come_late_and_in_any_order(example: Example) -> None:
    lines = records(example.make_feed(0, 200))
    random.Random(1).shuffle(lines)
    for end in (50, 120, 200):
        example.show(b"\n".join(lines[:end]))
        example.run_well()
    assert sorted(example.published()) == sorted(lines)
