"""The examples over feeds that grow, through their commands into the outbox: each record once."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import stamina

from examples.dataplane import make_feed as dataplane_feed
from examples.dataplane.collector import DataplaneCollector
from examples.defacements import make_feed as defacements_feed
from examples.defacements.collector import DefacementsCollector
from examples.feed_server import FeedServer, serving
from examples.misp import make_feed as misp_feed
from examples.misp.collector import MispCollector
from examples.shadowserver import make_feed as shadowserver_feed
from examples.shadowserver.collector import ShadowserverCollector
from examples.taxii import make_feed as taxii_feed
from examples.taxii.collector import TaxiiCollector
from examples.taxii.server import TaxiiServer
from examples.urlhaus import make_feed as urlhaus_feed
from examples.urlhaus.collector import UrlhausCollector
from n6_stateful.command import main
from n6_stateful.journal import Journal, Waiting, journals_in

EXAMPLES = Path(urlhaus_feed.__file__).parents[1]
CRASHED = 99
Output = tuple[pytest.CaptureFixture[str], pytest.LogCaptureFixture]


class Result(NamedTuple):
    """The exit code of a run, what it logged, and the last line of that: its error."""

    exit_code: int
    log: str
    last: str


class Example:
    """A collector class, set up to run over the feed of `server`, which `make_feed(begin, end)` makes;
    `shown` has the names of all records that were ever in the feed."""

    def __init__(self, collector: Any, server: FeedServer, make_feed: Any, output: Output, url: str) -> None:
        self.collector, self.server, self.make_feed = collector, server, make_feed
        self._capsys, self._caplog = output
        self.name = collector.__module__.split(".")[1]
        self.config, self._cache = server.file.with_name("60.conf"), server.file.with_name("cache")
        cache_dir = f"cache_dir = {self._cache}\n" if "cache_dir" in collector.config_spec else ""
        self.config.write_text(
            f"[{self.name}]\nsource = example\nurl = {url}\n{cache_dir}"
            f"[journal]\ndirectory = {self._cache}\n[output]\nurl = outbox:\n"
        )
        self.shown: set[bytes] = set()

    def show(self, feed: bytes) -> None:
        """Have the source show `feed`."""
        self.server.file.write_bytes(feed)
        self.shown.update(keys(self.name, feed))

    def run(self) -> Result:
        """Run the collector once."""
        self._capsys.readouterr()
        self._caplog.clear()
        exit_code = main(self.collector, ["--config", str(self.config)])
        log = self._caplog.text + self._capsys.readouterr().err
        return Result(exit_code, log, log.strip().rpartition("\n")[2])

    def run_well(self) -> str:
        """Run the collector once, without error; its log."""
        result = self.run()
        assert result.exit_code == 0, result.log
        return result.log

    def crash(self, number: int, *, after: bool) -> None:
        """Run it in a process that dies before or after its commit number `number`."""
        pid = os.fork()
        if not pid:
            commit, commits = Journal.commit, iter(range(1, 1000))

            def commit_or_die(*args: Any, **kwargs: Any) -> int:
                is_last = next(commits) == number
                result = 0 if is_last and not after else commit(*args, **kwargs)
                return os._exit(CRASHED) if is_last else result

            Journal.commit = commit_or_die  # type: ignore[method-assign]
            main(self.collector, ["--config", str(self.config)])
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == CRASHED

    def messages(self) -> list[Waiting]:
        """The messages that were collected so far, in order."""
        messages: list[Waiting] = []
        for journal in journals_in(self._cache):
            journal.open()
            messages += journal.waiting()
            journal.unlock()
        return messages

    def published(self) -> list[bytes]:
        """The names of the records in them."""
        return [key for message in self.messages() for key in keys(self.name, message.body)]

    def assert_each_once(self) -> None:
        """Assert that each record that was ever shown is in the outbox, once."""
        published = self.published()
        assert len(published) == len(set(published)), "something was published twice"
        assert set(published) == self.shown


def keys(name: str, feed: bytes) -> list[bytes]:
    """What identifies the records in `feed`: URLhaus' ids, STIX ids, guids, dataplane.org's whole lines."""
    pattern = {
        "urlhaus": rb'(?m)^"(\d+)","',
        "taxii": rb'"id":\s*"(\S+?)"',
        "defacements": rb'<guid[^>]*>(\d+)<|"id":"(\d+)"',
        "dataplane": rb"(?m)^([^#\n].*)$",
    }.get(name, rb"()")
    return [b"".join(match.groups(b"")) for match in re.finditer(pattern, feed)]


def shuffled(feed: bytes) -> bytes:
    """`feed` with its records in any order, between the `#` lines."""
    lines = feed.splitlines(keepends=True)
    records = [line for line in lines if not line.startswith(b"#")]
    begin = next(at for at, line in enumerate(lines) if not line.startswith(b"#"))
    random.Random(1).shuffle(records)
    return b"".join([*lines[:begin], *records, *lines[begin + len(records) :]])


FEEDS: dict[str, tuple[Any, Callable[[int, int], bytes]]] = {
    "urlhaus": (UrlhausCollector, urlhaus_feed.feed),
    "dataplane": (DataplaneCollector, dataplane_feed.feed),
    # Where no other object was added at the same instant as the last of them.
    "taxii": (TaxiiCollector, lambda begin, end: taxii_feed.feed(begin, end - end % taxii_feed.TOGETHER)),
    "defacements": (DefacementsCollector, lambda begin, end: defacements_feed.feed(end, end - begin)),
}


def only(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", names, indirect=True)


@pytest.fixture
def output(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Output]:
    """What the collector prints and logs; a download is repeated without a pause, and asks no proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    stamina.set_testing(True, attempts=4)
    yield capsys, caplog
    stamina.set_testing(False)


@pytest.fixture(params=list(FEEDS))
def example(request: pytest.FixtureRequest, tmp_path: Path, output: Output) -> Iterator[Example]:
    collector, make_feed = FEEDS[request.param]
    with serving(tmp_path / "feed", TaxiiServer if request.param == "taxii" else FeedServer) as server:
        key = "" if request.param == "taxii" else "?auth-key=hush"
        yield Example(collector, server, make_feed, output, server.url + key)


def test_feed_files() -> None:
    """The files in the repository are what their scripts make."""
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
            example.run_well()
            example.assert_each_once()

    def test_transient_errors(self, example: Example) -> None:
        """After a transient error the download is repeated."""
        example.show(example.make_feed(0, 10))
        example.server.faults = [500, "cut", 503]
        example.run_well()
        example.assert_each_once()

    def test_lasting_errors(self, example: Example) -> None:
        """A permanent error is one clear line, and the next run collects everything."""
        example.show(example.make_feed(0, 20))
        for faults, text in (
            ([404], "answered 404 Not Found"),
            ([500] * 4, "answered 500 Internal Server Error"),
            (["cut"] * 4, "ended|Incomplete"),
        ):
            example.server.faults = list(faults)
            result = example.run()
            assert (result.exit_code, example.published()) == (66, [])
            assert re.search(text, result.last)
            assert "Traceback" not in result.log
            assert "hush" not in result.log
        example.run_well()
        example.assert_each_once()

    @only("urlhaus", "dataplane")
    def test_rolls(self, example: Example) -> None:
        """Records that leave the feed and return are not published again, in any order."""
        for begin, end in ((0, 100), (50, 150), (0, 150), (140, 240)):
            example.show(shuffled(example.make_feed(begin, end)))
            example.run_well()
        example.assert_each_once()

    @only("urlhaus", "dataplane")
    def test_odd_lines(self, example: Example) -> None:
        """Lines that are not records are left out, with a warning."""
        good = example.make_feed(0, 10)
        example.show(good + b'\r\n<html>502 Bad Gateway</html>\r\n"9999999999","2026-01-\r\n')
        example.shown.intersection_update(keys(example.name, good))
        assert "<html>502" in example.run_well()
        example.assert_each_once()

    @only("urlhaus", "dataplane")
    def test_unchanged(self, example: Example) -> None:
        """An unchanged feed is not downloaded again; a page of HTML is not a feed."""
        example.show(example.make_feed(0, 10))
        for _ in range(3):
            example.run_well()
        assert example.server.answers == [200, 304, 304]
        example.server.file.write_bytes(b"<html>Checking your browser...</html>\n")
        assert example.run().exit_code == 66
        example.assert_each_once()

    @only("dataplane")
    def test_late(self, example: Example) -> None:
        """Records that arrive late are published."""
        whole = shuffled(example.make_feed(0, 300)).splitlines(keepends=True)
        for left_out in (100, 50, 0):
            example.show(b"".join(whole[: 20 + left_out] + whole[20 + 2 * left_out :]))
            example.run_well()
        example.assert_each_once()


@only("taxii")
class TestTaxii:
    """Page after page."""

    @pytest.mark.parametrize(("after", "committed"), [(False, 500), (True, 1000)], ids=["before", "after"])
    def test_killed(self, example: Example, after: bool, committed: int) -> None:
        """A run that is killed at its second commit goes on there."""
        example.show(example.make_feed(0, 3000))
        example.crash(2, after=after)
        assert len(example.published()) == committed
        example.run_well()
        example.assert_each_once()

    @pytest.mark.parametrize("sends_next", [True, False], ids=["next", "no next"])
    def test_failed(self, example: Example, sends_next: bool) -> None:
        """It goes on at the page that it could not get."""
        example.server.sends_next = sends_next  # type: ignore[attr-defined]
        example.show(example.make_feed(0, 1200))
        example.server.faults = ["", "", 403]
        result = example.run()
        assert result.exit_code == 66
        assert "403 Forbidden" in result.last
        example.show(example.make_feed(0, 1300))
        example.run_well()
        example.assert_each_once()

    def test_forgotten(self, example: Example) -> None:
        """When the server has forgotten a page, it begins again rather than lose something."""
        example.show(example.make_feed(0, 900))
        example.server.faults = ["", 403]
        assert example.run().exit_code == 66
        example.server.forgets = True  # type: ignore[attr-defined]
        config = example.config.read_text()
        example.config.write_text(config.replace("[output]", "[taxii]\nobjects_per_page = 1000\n[output]"))
        example.run_well()
        assert set(example.published()) == example.shown

    @pytest.mark.parametrize("dates", [True, False], ids=["dates", "no dates"])
    @pytest.mark.parametrize("filters", [True, False], ids=["added_after", "no added_after"])
    def test_other_servers(self, example: Example, dates: bool, filters: bool) -> None:
        """A server without dates, or one that ignores `added_after`, is still read, each object once;
        one that does both is an error that says what to do."""
        assert isinstance(example.server, TaxiiServer)
        example.server.dates, example.server.filters = dates, filters
        for end in (1197, 1197, 1204, 1204, 2100):
            last, after = (datetime.fromisoformat(taxii_feed.added(number)) for number in (end - 1, end))
            example.server.clock = (last + (after - last) / 2).timestamp  # of an answer without dates
            example.show(example.make_feed(0, end))
            result = example.run()
            if not dates and not filters and example.published():
                result = example.run()
                assert result.exit_code == 66
                assert "with the shape items" in result.last
                return
            assert result.exit_code == 0, result.log
        example.assert_each_once()


@only("defacements")
def test_control_characters(example: Example) -> None:
    """Characters that XML does not allow do not stop a feed; each message is an item."""
    example.show(defacements_feed.feed(3).replace(b"notified", b"noti\x0bfied"))
    example.run_well()
    example.assert_each_once()
    assert all(json.loads(message.body)["title"].endswith("& friends") for message in example.messages())


class TestMisp:
    """A manifest, and a file for each event."""

    @pytest.fixture
    def misp(self, tmp_path: Path, output: Output) -> Iterator[Example]:
        with serving(tmp_path / "manifest.json") as server:
            yield Example(MispCollector, server, None, output, server.url.rpartition("/")[0])

    def test_versions(self, misp: Example, tmp_path: Path) -> None:
        """Each event is published once in each version, and only what is new is downloaded."""
        shown: list[str] = []
        for end, edition in ((10, 0), (10, 0), (12, 0), (15, 1)):
            shown += misp_feed.write_feed(tmp_path, end, edition)
            misp.run_well()
        events = [json.loads(message.body)["Event"] for message in misp.messages()]
        assert sorted(f"{event['uuid']} {event['timestamp']}" for event in events) == sorted(set(shown))
        assert len(misp.server.answers) == 4 + len(events)

    def test_manifests(self, misp: Example) -> None:
        """An empty manifest is nothing new, in both of its forms; anything else is an error."""
        for manifest, exit_code in ((b"{}", 0), (b"[]", 0), (b"<html>Log in</html>", 66), (b'["a"]', 66)):
            misp.server.file.write_bytes(manifest)
            result = misp.run()
            assert (result.exit_code, misp.messages()) == (exit_code, []), result.log
            assert "Traceback" not in result.log

    def test_missing_event(self, misp: Example, tmp_path: Path) -> None:
        """An event that is not there is a warning, and is tried again; the others are published."""
        uuid = misp_feed.write_feed(tmp_path, 3)[1].split()[0]
        (tmp_path / f"{uuid}.json").rename(tmp_path / "away")
        assert "404" in misp.run_well()
        assert len(misp.messages()) == 2
        (tmp_path / "away").rename(tmp_path / f"{uuid}.json")
        misp.run_well()
        assert len(misp.messages()) == 3


def test_shadowserver(tmp_path: Path, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail makes the message of the report it links to, on that report's channel; others are errors."""
    with serving(tmp_path / "report-0.csv") as server:
        url = server.url.rpartition("/")[0] + "/"
        example = Example(ShadowserverCollector, server, None, output, url)

        def collect(mail: bytes) -> Result:
            monkeypatch.setattr(ShadowserverCollector, "raw_email_msg", mail)
            return example.run()

        for number in range(3):
            assert collect(shadowserver_feed.write_feed(tmp_path, url, number)).exit_code == 0
        for mail, text in (
            (shadowserver_feed.mail(0, "https://evil.example/"), "the mail has no link to"),
            (shadowserver_feed.mail(0, url).replace(b"Report:", b"Advert:"), "names no report that is known"),
        ):
            result = collect(mail)
            assert (result.exit_code, text in result.last) == (66, True), result.log
    messages = example.messages()
    channels = ["example.telnet", "example.open-resolver", "example.sinkhole"]
    assert [message.routing_key for message in messages] == channels
    assert [message.body for message in messages] == list(map(shadowserver_feed.report, range(3)))
