"""The examples, over feeds that grow, through their console commands into a spool: each record once."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from examples.dataplane import make_feed as dataplane_feed
from examples.feed_server import FeedServer, serving
from examples.taxii import collector as taxii_collector
from examples.taxii import make_feed as taxii_feed
from examples.taxii.server import TaxiiServer
from examples.urlhaus import collector as urlhaus_collector
from examples.urlhaus import make_feed as urlhaus_feed
from n6_stateful.output.spool import Spool

EXAMPLES = Path(urlhaus_feed.__file__).parents[1]

WITHOUT_WAITING = "import stamina; stamina.set_testing(True, attempts=4)"
# Lets the second save of the state do no more than `step`, and kills the collector then.
KILLED = """
import os, signal
save_state = C.save_state
saves = []
def save_or_die(self, state):
    saves.append(state)
    if len(saves) < 2:
        return save_state(self, state)
    ({step})(self, state)
    os.kill(os.getpid(), signal.SIGKILL)
C.save_state = save_or_die
"""

URLHAUS = pytest.mark.parametrize("example", ["urlhaus"], indirect=True)
TAXII = pytest.mark.parametrize("example", ["taxii"], indirect=True)
OF_LINES = pytest.mark.parametrize("example", ["urlhaus", "dataplane"], indirect=True)
DATAPLANE = pytest.mark.parametrize("example", ["dataplane"], indirect=True)


class Example(NamedTuple):
    """One example, set up to run over its feed."""

    name: str
    directory: Path
    server: FeedServer
    environment: dict[str, str]
    make_feed: Callable[[int, int], bytes]
    shown: set[bytes]

    def show(self, feed: bytes) -> None:
        """Let the source show `feed`."""
        self.server.file.write_bytes(feed)
        self.shown.update(keys(self.name, feed))

    def run(self, first: str = WITHOUT_WAITING) -> tuple[int, str]:
        """Run the collector once, after `first`; its exit code and what it logs."""
        collector = f"{self.name.capitalize()}Collector"
        program = f"from examples.{self.name}.collector import {collector} as C\n{first}\nC.run_script()"
        return self.call(["-c", program])

    def run_well(self) -> str:
        """Run the collector once, without error; what it logs."""
        code, log = self.run()
        assert code == 0, log
        return log

    def run_file(self) -> None:
        """Run the collector once, by the name of its file."""
        code, log = self.call([str(EXAMPLES / self.name / "collector.py")])
        assert code == 0, log

    def call(self, program: list[str]) -> tuple[int, str]:
        """Run Python with `program` and the configuration; its exit code and what it logs."""
        done = subprocess.run(
            [sys.executable, *program, "--config", self.directory / "60.conf"],
            cwd=EXAMPLES.parent,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stderr

    def published(self) -> list[bytes]:
        """What names each record published so far, in order."""
        bodies = [spooled.message.body for spooled in Spool(self.directory / "spool").messages()]
        return [key for body in bodies for key in keys(self.name, body)]

    def assert_each_was_published_once(self) -> None:
        """Assert that each record that was ever shown is in the spool, once."""
        published = self.published()
        assert len(published) == len(set(published)), "something came twice"
        assert set(published) == self.shown


def keys(name: str, feed: bytes) -> list[bytes]:
    """What names the records in `feed`: URLhaus' ids, STIX ids, dataplane.org's whole lines."""
    if name == "urlhaus":
        return re.findall(rb'^"(\d+)","', feed, re.MULTILINE)
    if name == "taxii":
        return re.findall(rb'"id": "(\S+)"', feed)
    return [line for line in feed.splitlines() if line and not line.startswith(b"#")]


def shuffled(feed: bytes) -> bytes:
    """`feed` with its records in any order, between the `#` lines."""
    lines = feed.splitlines(keepends=True)
    records = [line for line in lines if not line.startswith(b"#")]
    begin = next(at for at, line in enumerate(lines) if not line.startswith(b"#"))
    random.Random(1).shuffle(records)
    return b"".join([*lines[:begin], *records, *lines[begin + len(records) :]])


def taxii_objects(begin: int, end: int) -> bytes:
    """The objects up to about `end`, where no other was added at the same instant as the last of them."""
    return taxii_feed.feed(begin, end - end % taxii_feed.TOGETHER)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment without a proxy between us and 127.0.0.1, and with bytecode on disk, as it is after an
    installation: else each of the many runs would compile its libraries."""
    env = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**env, "PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode"))}


@pytest.fixture(params=["urlhaus", "dataplane", "taxii"])
def example(request: pytest.FixtureRequest, tmp_path: Path, environment: dict[str, str]) -> Iterator[Example]:
    name: str = request.param
    feeds = {"urlhaus": urlhaus_feed.feed, "dataplane": dataplane_feed.feed, "taxii": taxii_objects}
    with serving(tmp_path / "feed", TaxiiServer if name == "taxii" else FeedServer) as server:
        (tmp_path / "60.conf").write_text(
            f"[{name}]\nsource = example\ncache_dir = {tmp_path}/cache\nurl = {server.url}?auth-key=hush\n"
            f"[output]\nurl = spool:{tmp_path}/spool\n"
        )
        yield Example(name, tmp_path, server, environment, feeds[name], set())


def test_the_feed_files_are_what_their_scripts_make_and_hold_over_1000_records() -> None:
    for name, file, feed in (
        ("urlhaus", "feed.csv", urlhaus_feed.feed(0, 1200)),
        ("dataplane", "feed.txt", dataplane_feed.feed(0, 2000)),
        ("taxii", "feed.jsonl", taxii_feed.feed(0, 1200)),
    ):
        assert (EXAMPLES / name / file).read_bytes() == feed
        assert len(set(keys(name, feed))) > 1000


def test_each_record_of_a_growing_feed_is_published_once(example: Example) -> None:
    for end in (1000, 1000, 1001, 1004, 1300):
        example.show(example.make_feed(0, end))
        example.run_file()
        example.assert_each_was_published_once()


@OF_LINES
def test_what_rotates_out_of_the_feed_is_not_missed_and_not_taken_again(example: Example) -> None:
    for begin, end in ((0, 100), (50, 150), (0, 150), (140, 240)):
        example.show(example.make_feed(begin, end))
        example.run_well()
    example.assert_each_was_published_once()


@OF_LINES
def test_the_order_of_the_feed_does_not_matter(example: Example) -> None:
    for end in (300, 400):
        example.show(shuffled(example.make_feed(0, end)))
        example.run_well()
    example.assert_each_was_published_once()


@OF_LINES
def test_lines_that_are_no_records_are_left_out_and_told(example: Example) -> None:
    good = example.make_feed(0, 10)
    example.show(good + b'\r\n<html>502 Bad Gateway</html>\r\n"9999999999","2026-01-01\r\n\xff|\xff|||\r\n')
    example.shown.intersection_update(keys(example.name, good))
    log = example.run_well()
    assert "3 lines are no records, left out; the first: b'<html>502" in log
    example.assert_each_was_published_once()


@OF_LINES
def test_an_unchanged_feed_is_not_sent_again(example: Example) -> None:
    example.show(example.make_feed(0, 10))
    for _ in range(3):
        example.run_well()
    assert example.server.answers == [200, 304, 304]


def test_errors_that_pass_are_tried_again(example: Example) -> None:
    example.show(example.make_feed(0, 10))
    example.server.faults = [500, "cut", 503]
    example.run_well()
    example.assert_each_was_published_once()


@pytest.mark.parametrize("pause", [urlhaus_collector.pause, taxii_collector.pause], ids=["urlhaus", "taxii"])
def test_a_server_may_tell_how_long_to_wait(pause: Callable[[Exception], bool | float]) -> None:
    response = requests.Response()
    response.status_code = 429
    waits = []
    for told in ("", "7", "3600", "Wed, 21 Oct 2026 07:28:00 GMT"):
        response.headers["Retry-After"] = told
        waits.append(pause(requests.HTTPError(response=response)))
    assert waits == [True, 7.0, 60.0, True]


def test_errors_that_stay_are_one_clear_line_and_the_next_run_takes_everything(example: Example) -> None:
    example.show(example.make_feed(0, 20))
    for faults, text in (
        ([404], "could not be downloaded: 404 Not Found"),
        ([500] * 4, "could not be downloaded: 500 Internal Server Error"),
        (["cut"] * 4, "could not be downloaded: "),
        (["cut unannounced"], "ends in the middle of a line|JSONDecodeError"),
    ):
        example.server.faults = list(faults)
        code, log = example.run()
        assert (code, example.published()) == (1, [])
        assert re.search(text, log.splitlines()[-1])
        assert re.search("nothing was published|0 objects before it were", log.splitlines()[-1])
        assert "Traceback" not in log
    example.run_well()
    example.assert_each_was_published_once()


@OF_LINES
def test_a_page_that_is_no_feed_is_an_error(example: Example) -> None:
    example.show(b"<html>Checking your browser...</html>\n")
    code, log = example.run()
    assert (code, example.published()) == (1, [])
    assert "the source sent something else: b'<html>Checking" in log.splitlines()[-1]


@URLHAUS
def test_the_key_in_the_url_is_not_shown(example: Example) -> None:
    example.show(example.make_feed(0, 10))
    example.server.faults = [403]
    logs = [example.run()[1]]
    config = example.directory / "60.conf"
    config.write_text(config.read_text().replace(str(example.server.server_port), "1"))
    logs.append(example.run()[1])
    assert "403 Forbidden" in logs[0]
    assert "refused" in logs[1]
    assert "hush" not in "".join(logs)


@URLHAUS
def test_urlhaus_tells_when_records_may_have_been_missed(example: Example) -> None:
    for begin, end in ((0, 10), (20, 30)):
        example.show(example.make_feed(begin, end))
        log = example.run_well()
    assert "the feed begins at record 3400020, the last one taken was 3400009" in log
    example.assert_each_was_published_once()


@URLHAUS
def test_urlhaus_tells_when_the_source_seems_to_count_anew(example: Example) -> None:
    example.show(example.make_feed(100, 110))
    example.run_well()
    example.server.file.write_bytes(example.make_feed(0, 10))
    assert "the feed ends at record 3400009, and 3400109 was taken already" in example.run_well()
    example.assert_each_was_published_once()


@DATAPLANE
def test_dataplane_takes_records_that_come_late(example: Example) -> None:
    whole = shuffled(example.make_feed(0, 300)).splitlines(keepends=True)
    for left_out in (100, 50, 0):
        example.show(b"".join(whole[: 20 + left_out] + whole[20 + 2 * left_out :]))
        example.run_well()
    example.assert_each_was_published_once()


@DATAPLANE
def test_dataplane_forgets_what_no_report_will_show_again(example: Example) -> None:
    for begin, end in ((0, 840), (840, 1260)):
        example.show(example.make_feed(begin, end))
        example.run_well()
    (state,) = (example.directory / "cache").glob("*.pickle")
    assert set(example.published()) == example.shown
    first = keys("dataplane", dataplane_feed.feed(0, 840))
    assert not any(line in state.read_bytes() for line in first)


@DATAPLANE
def test_dataplane_asks_again_for_a_report_without_its_totals(example: Example) -> None:
    whole = example.make_feed(0, 100)
    example.server.file.write_bytes(whole.partition(b"# Statistics")[0])
    assert "may be cut off" in example.run_well()
    example.run_well()
    assert example.server.answers == [200, 200]


@pytest.mark.parametrize("example", ["dataplane", "taxii"], indirect=True)
@pytest.mark.parametrize(
    ("step", "delivered"),
    [
        ("lambda self, state: None", 500),
        ("lambda self, state: self.flush_output()", 1000),
        ("save_state", 1000),
    ],
    ids=["before all", "after delivery", "after all"],
)
def test_one_that_is_killed_in_its_second_save_goes_on_there(
    example: Example, step: str, delivered: int
) -> None:
    example.show(example.make_feed(0, 3000))
    code, log = example.run(KILLED.format(step=step))
    assert code == -signal.SIGKILL, log
    assert len(example.published()) == delivered
    example.run_well()
    example.assert_each_was_published_once()


@TAXII
@pytest.mark.parametrize("sends_next", [True, False], ids=["next", "no next"])
def test_taxii_goes_on_at_the_page_that_it_could_not_get(example: Example, sends_next: bool) -> None:
    assert isinstance(example.server, TaxiiServer)
    example.server.sends_next = sends_next
    example.show(example.make_feed(0, 1200))
    example.server.faults = ["", "", 403]
    code, log = example.run()
    assert code == 1
    assert re.search("403 Forbidden; 1,00. objects before it were published", log.splitlines()[-1])
    example.show(example.make_feed(0, 1300))
    example.run_well()
    example.assert_each_was_published_once()


@TAXII
def test_taxii_begins_again_rather_than_miss_something_when_the_server_has_forgotten_the_page(
    example: Example,
) -> None:
    assert isinstance(example.server, TaxiiServer)
    example.show(example.make_feed(0, 900))
    example.server.faults = ["", 403]
    assert example.run()[0] == 1
    example.server.forgets = True
    config = example.directory / "60.conf"
    config.write_text(config.read_text().replace("[output]", "objects_per_page = 1000\n[output]"))
    assert "some objects will come twice" in example.run_well()
    assert set(example.published()) == example.shown


class StuckServer(TaxiiServer):
    """Has always more, and never any other than the first page."""

    def answer(self, parameters: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = super().answer({})
        return status, headers, body.replace(b'"more": false', b'"more": true')


@TAXII
def test_taxii_does_not_ask_for_the_same_page_for_ever(example: Example) -> None:
    example.show(example.make_feed(0, 70))
    with serving(example.server.file, StuckServer) as stuck:
        config = example.directory / "60.conf"
        config.write_text(config.read_text().replace(example.server.url, stuck.url))
        code, log = example.run()
    assert code == 1
    assert "sends the same page again" in log.splitlines()[-1]
    example.assert_each_was_published_once()
