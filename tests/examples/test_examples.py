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
from xml.etree import ElementTree

import pytest

from examples.dataplane import make_feed as dataplane_feed
from examples.defacements import make_feed as defacements_feed
from examples.feed_server import FeedServer, serving
from examples.misp import make_feed as misp_feed
from examples.shadowserver import make_feed as shadowserver_feed
from examples.taxii import make_feed as taxii_feed
from examples.taxii.server import TaxiiServer
from examples.urlhaus import make_feed as urlhaus_feed
from n6_stateful.message import Message
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

OF_LINES = pytest.mark.parametrize("example", ["urlhaus", "dataplane"], indirect=True)
URLHAUS = pytest.mark.parametrize("example", ["urlhaus"], indirect=True)
TAXII = pytest.mark.parametrize("example", ["taxii"], indirect=True)
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

    def call(self, program: list[str], mail: bytes = b"") -> tuple[int, str]:
        """Run Python with `program`, the configuration and a mail; its exit code and what it logs."""
        done = subprocess.run(
            [sys.executable, *program, "--config", self.directory / "60.conf"],
            cwd=EXAMPLES.parent,
            env=self.environment,
            capture_output=True,
            input=mail,
            timeout=120,
        )
        return done.returncode, done.stderr.decode()

    def published(self) -> list[bytes]:
        """What names each record published so far, in order."""
        bodies = [message.body for message in spooled(self.directory)]
        return [key for body in bodies for key in keys(self.name, body)]

    def assert_each_was_published_once(self) -> None:
        """Assert that each record that was ever shown is in the spool, once."""
        published = self.published()
        assert len(published) == len(set(published)), "something came twice"
        assert set(published) == self.shown


def spooled(directory: Path) -> list[Message]:
    """The messages in the spool, with their bodies."""
    spool = Spool(directory / "spool")
    found = [spool.message(each.message_id) for each in spool.messages()]
    return [each.message for each in found if each]


def keys(name: str, feed: bytes) -> list[bytes]:
    """What names the records in `feed`: URLhaus' ids, STIX ids, guids, dataplane.org's whole lines."""
    if name == "urlhaus":
        return re.findall(rb'^"(\d+)","', feed, re.MULTILINE)
    if name == "taxii":
        return re.findall(rb'"id":\s*"(\S+?)"', feed)
    if name == "defacements":
        return re.findall(rb"<guid[^>]*>(\d+)<", feed)
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


@pytest.fixture(params=["urlhaus", "dataplane", "taxii", "defacements"])
def example(request: pytest.FixtureRequest, tmp_path: Path, environment: dict[str, str]) -> Iterator[Example]:
    name: str = request.param
    feeds: dict[str, Callable[[int, int], bytes]] = {
        "urlhaus": urlhaus_feed.feed,
        "dataplane": dataplane_feed.feed,
        "taxii": taxii_objects,
        "defacements": lambda begin, end: defacements_feed.feed(end, end - begin),
    }
    with serving(tmp_path / "feed", TaxiiServer if name == "taxii" else FeedServer) as server:
        key = "" if name == "taxii" else "?auth-key=hush"
        write_config(tmp_path, name, f"cache_dir = {tmp_path}/cache\nurl = {server.url}{key}")
        yield Example(name, tmp_path, server, environment, feeds.get(name, urlhaus_feed.feed), set())


def write_config(directory: Path, name: str, options: str) -> None:
    (directory / "60.conf").write_text(
        f"[{name}]\nsource = example\n{options}\n[output]\nurl = spool:{directory}/spool\n"
    )


def test_feed_files() -> None:
    """They are what their scripts make."""
    for name, file, feed in (
        ("urlhaus", "feed.csv", urlhaus_feed.feed(0, 1200)),
        ("dataplane", "feed.txt", dataplane_feed.feed(0, 2000)),
        ("taxii", "feed.jsonl", taxii_feed.feed(0, 1200)),
        ("defacements", "feed.xml", defacements_feed.feed(50)),
    ):
        assert (EXAMPLES / name / file).read_bytes() == feed


class TestFeeds:
    """What holds for all of them."""

    def test_grows(self, example: Example) -> None:
        """Each record of a growing feed is published once."""
        for end in (1000, 1000, 1001, 1004, 1300):
            example.show(example.make_feed(0, end))
            example.run_file()
            example.assert_each_was_published_once()

    def test_passing_errors(self, example: Example) -> None:
        """Errors that pass are tried again."""
        example.show(example.make_feed(0, 10))
        example.server.faults = [500, "cut", 503]
        example.run_well()
        example.assert_each_was_published_once()

    def test_lasting_errors(self, example: Example) -> None:
        """Errors that stay are one clear line, and the next run takes everything."""
        example.show(example.make_feed(0, 20))
        for faults, text in (
            ([404], "answered 404 Not Found"),
            ([500] * 4, "answered 500 Internal Server Error"),
            (["cut"] * 4, "ended|Incomplete"),
        ):
            example.server.faults = list(faults)
            code, log = example.run()
            assert (code, example.published()) == (66, [])
            assert re.search(text, log.splitlines()[-1])
            assert "Traceback" not in log
            assert "hush" not in log
        example.run_well()
        example.assert_each_was_published_once()

    @OF_LINES
    def test_rotates(self, example: Example) -> None:
        """What rotates out of the feed is not missed, and not taken again."""
        for begin, end in ((0, 100), (50, 150), (0, 150), (140, 240)):
            example.show(example.make_feed(begin, end))
            example.run_well()
        example.assert_each_was_published_once()

    @OF_LINES
    def test_order(self, example: Example) -> None:
        """The order of the feed does not matter."""
        for end in (300, 400):
            example.show(shuffled(example.make_feed(0, end)))
            example.run_well()
        example.assert_each_was_published_once()

    @OF_LINES
    def test_odd_lines(self, example: Example) -> None:
        """Lines that are no records are left out and told."""
        good = example.make_feed(0, 10)
        example.show(good + b'\r\n<html>502 Bad Gateway</html>\r\n"9999999999","2026-01-\r\n')
        example.shown.intersection_update(keys(example.name, good))
        assert (
            "2 rows have no time (or key), or a time that is still to come; the first is '<html>502"
            in example.run_well()
        )
        example.assert_each_was_published_once()

    @OF_LINES
    def test_unchanged(self, example: Example) -> None:
        """An unchanged feed is not sent again."""
        example.show(example.make_feed(0, 10))
        for _ in range(3):
            example.run_well()
        assert example.server.answers == [200, 304, 304]

    @OF_LINES
    def test_page(self, example: Example) -> None:
        """A page of HTML is not a feed."""
        example.show(b"<html>Checking your browser...</html>\n")
        code, log = example.run()
        assert (code, example.published()) == (66, [])
        assert "something else than expected" in log.splitlines()[-1]

    @DATAPLANE
    def test_late(self, example: Example) -> None:
        """Records that come late are taken."""
        whole = shuffled(example.make_feed(0, 300)).splitlines(keepends=True)
        for left_out in (100, 50, 0):
            example.show(b"".join(whole[: 20 + left_out] + whole[20 + 2 * left_out :]))
            example.run_well()
        example.assert_each_was_published_once()


class StuckServer(TaxiiServer):
    """Has always more, and never any other than the first page."""

    def answer(self, name: str, parameters: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = super().answer(name, {})
        return status, headers, body.replace(b'"more": false', b'"more": true')


@TAXII
class TestTaxii:
    """Page after page."""

    @pytest.mark.parametrize(
        ("step", "delivered"),
        [
            ("lambda self, state: None", 500),
            ("lambda self, state: self.flush_output()", 1000),
            ("save_state", 1000),
        ],
        ids=["before all", "after delivery", "after all"],
    )
    def test_killed(self, example: Example, step: str, delivered: int) -> None:
        """One that is killed in its second save goes on there."""
        example.show(example.make_feed(0, 3000))
        code, log = example.run(KILLED.format(step=step))
        assert code == -signal.SIGKILL, log
        assert len(example.published()) == delivered
        example.run_well()
        example.assert_each_was_published_once()

    @pytest.mark.parametrize("sends_next", [True, False], ids=["next", "no next"])
    def test_failed(self, example: Example, sends_next: bool) -> None:
        """It goes on at the page that it could not get."""
        assert isinstance(example.server, TaxiiServer)
        example.server.sends_next = sends_next
        example.show(example.make_feed(0, 1200))
        example.server.faults = ["", "", 403]
        code, log = example.run()
        assert code == 66
        assert "403 Forbidden" in log.splitlines()[-1]
        example.show(example.make_feed(0, 1300))
        example.run_well()
        example.assert_each_was_published_once()

    def test_forgotten(self, example: Example) -> None:
        """It begins again rather than miss something when the server has forgotten the page."""
        assert isinstance(example.server, TaxiiServer)
        example.show(example.make_feed(0, 900))
        example.server.faults = ["", 403]
        assert example.run()[0] == 66
        example.server.forgets = True
        config = example.directory / "60.conf"
        config.write_text(config.read_text().replace("[output]", "objects_per_page = 1000\n[output]"))
        example.run_well()
        assert set(example.published()) == example.shown

    def test_stuck(self, example: Example) -> None:
        """It does not ask for the same page for ever."""
        example.show(example.make_feed(0, 70))
        with serving(example.server.file, StuckServer) as stuck:
            config = example.directory / "60.conf"
            config.write_text(config.read_text().replace(example.server.url, stuck.url))
            code, log = example.run()
        assert code == 66
        assert "the cursor does not advance" in log.splitlines()[-1]
        example.assert_each_was_published_once()


def test_defacements_are_whole(environment: dict[str, str], tmp_path: Path) -> None:
    """Each message is the item, as XML that can be read again."""
    with serving(tmp_path / "feed") as server:
        write_config(tmp_path, "defacements", f"cache_dir = {tmp_path}/cache\nurl = {server.url}")
        example = Example("defacements", tmp_path, server, environment, urlhaus_feed.feed, set())
        example.show(defacements_feed.feed(3))
        example.run_well()
    bodies = [message.body for message in spooled(tmp_path)]
    titles = [ElementTree.fromstring(body).findtext("title", "") for body in bodies]  # noqa: S314 - our own
    assert [title.endswith("& friends") for title in titles] == [True] * 3


def test_misp(environment: dict[str, str], tmp_path: Path) -> None:
    """Each event is published once in each version, and only what is new is downloaded."""
    with serving(tmp_path / "manifest.json") as server:
        url = server.url.rpartition("/")[0]
        write_config(tmp_path, "misp", f"cache_dir = {tmp_path}/cache\nurl = {url}")
        example = Example("misp", tmp_path, server, environment, urlhaus_feed.feed, set())
        shown: list[str] = []
        for end, edition in ((10, 0), (10, 0), (12, 0), (15, 1)):
            shown += misp_feed.write_feed(tmp_path, end, edition)
            example.run_well()
        (tmp_path / "manifest.json").write_text("<html>Log in</html>")
        code, log = example.run()
    assert code == 66
    assert "manifest.json: answered with something else than JSON, beginning b'<html>" in log
    published = [
        " ".join(re.findall(rb'"(?:uuid|timestamp)": "(\S+)"', message.body)[at].decode() for at in (0, 1))
        for message in spooled(tmp_path)
    ]
    assert sorted(published) == sorted(set(shown))
    assert len(server.answers) == 5 + len(published)


def test_shadowserver(environment: dict[str, str], tmp_path: Path) -> None:
    """A mail makes the message of the report it links to, on that report's channel; others are errors."""
    with serving(tmp_path / "report-0.csv") as server:
        url = server.url.rpartition("/")[0] + "/"
        write_config(tmp_path, "shadowserver", f"url = {url}")
        example = Example("shadowserver", tmp_path, server, environment, urlhaus_feed.feed, set())
        program = ["-m", "examples.shadowserver.collector"]
        for number in range(3):
            code, log = example.call(program, shadowserver_feed.write_feed(tmp_path, url, number))
            assert code == 0, log
        for mail, text in (
            (shadowserver_feed.mail(0, "https://evil.example/"), "the mail has no link to"),
            (shadowserver_feed.mail(0, url).replace(b"Report:", b"Advert:"), "names no report that is known"),
            (b"", "empty"),
        ):
            code, log = example.call(program, mail)
            assert (code, text in log.splitlines()[-1]) == (66, True), log
    messages = spooled(tmp_path)
    channels = ["example.telnet", "example.open-resolver", "example.sinkhole"]
    assert [message.routing_key for message in messages] == channels
    assert [message.body for message in messages] == list(map(shadowserver_feed.report, range(3)))
