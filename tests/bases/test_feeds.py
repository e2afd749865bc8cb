"""RSS and Atom: each entry once, and again when it has changed, even in hostile feeds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.request import OpenerDirector

import pytest

from n6_stateful import ConfigError, SourceError
from n6_stateful.bases.feeds import BaseFeedCollector
from tests.bases.http_server import Server, answer
from tests.bases.running import Running


class FeedCollector(BaseFeedCollector):
    source_channel = "feed"
    config_spec = "[feed]\nsource :: str\ncache_dir :: path\n"


RSS = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0"><channel><title>News</title>{}</channel></rss>
"""
ITEM = (
    "<item><guid isPermaLink='false'>{0}</guid><title>{1}</title>"
    "<pubDate>Thu, 01 Jan 2026 00:0{0}:00 +0000</pubDate></item>"
)
ATOM = """<?xml version="1.0"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>News</title><entry>
<id>urn:1</id><title>One &amp; two</title><link href="https://news.example/1"/>
<link rel="enclosure" href="https://news.example/1.pcap"/><updated>2026-01-01T00:00:00Z</updated>
<author><name>N. N.</name></author><category term="malware"/><summary>short</summary>
<content type="html">&lt;script&gt;long&lt;/script&gt;</content></entry></feed>
"""


@pytest.fixture
def running(tmp_path: Path, server: Server) -> Running:
    return Running(FeedCollector, tmp_path, f"url = {server.url('/feed')}")


@pytest.fixture
def run(running: Running, server: Server) -> Any:
    """What a run publishes when the server has that feed."""

    def run(feed: str | bytes, content_type: str = "application/rss+xml") -> list[dict[str, Any]]:
        data = feed if isinstance(feed, bytes) else feed.encode()
        server.says["/feed"] = answer(data, f"Content-Type: {content_type}")
        return [json.loads(message.body) for message in running.run()]

    return run


def rss(*items: tuple[int, str]) -> str:
    return RSS.format("".join(ITEM.format(*item) for item in items))


class TestEntries:
    """What is published."""

    def test_rss(self, run: Any) -> None:
        """Each entry once, in the feed's order, and again when it has changed."""
        published = {"id": "1", "title": "a", "published": "Thu, 01 Jan 2026 00:01:00 +0000"}
        assert run(rss((1, "a"), (2, "b")))[0] == published
        assert run(rss((1, "a"), (2, "b"))) == []
        assert [entry["title"] for entry in run(rss((1, "a"), (2, "changed"), (3, "c")))] == ["changed", "c"]
        assert run(rss()) == []

    def test_atom(self, run: Any) -> None:
        """All fields of an entry are published unchanged."""
        assert run(ATOM, "text/html") == [
            {
                "author": "N. N.",
                "categories": ["malware"],
                "content": ["<script>long</script>"],
                "enclosures": ["https://news.example/1.pcap"],
                "id": "urn:1",
                "link": "https://news.example/1",
                "summary": "short",
                "title": "One & two",
                "updated": "2026-01-01T00:00:00Z",
            }
        ]

    def test_key(self, run: Any, running: Running) -> None:
        """An entry without an id is identified by its link, else its title, else it is left out."""
        items = "<item><link>https://a.example/</link></item><item><title>b</title></item>"
        assert len(run(RSS.format(items))) == 2
        items += "<item><description>x</description></item>"
        assert run(RSS.format(items)) == []
        assert running.left_out == 1

    @pytest.mark.parametrize("charset", ["utf-8", "utf-16", "iso-8859-2"])
    def test_charset(self, charset: str, run: Any) -> None:
        """The text is read in the feed's character set."""
        (entry,) = run(rss((1, "zażółć")).replace("UTF-8", charset).encode(charset))
        assert entry["title"] == "zażółć"


class TestBadFeeds:
    """A feed that is broken, or written by an attacker."""

    def test_control_characters(self, run: Any) -> None:
        """Control characters, which XML does not allow, are left out; the entries are read."""
        assert [entry["title"] for entry in run(rss((1, "a\x08\x0b\x1bb"), (2, "c")))] == ["ab", "c"]

    @pytest.mark.parametrize(
        "feed", ["<!DOCTYPE html><html><p>Log in</p></html>", "{}", "/etc/passwd", "http://localhost/"]
    )
    def test_no_feed(self, feed: str, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is not a feed is an error, and never treated as a file name or a URL."""
        monkeypatch.setattr(OpenerDirector, "open", None)
        with pytest.raises(SourceError, match="neither RSS nor Atom"):
            run(feed)

    @pytest.mark.parametrize("cut", [20, 60, 150])
    def test_cut(self, cut: int, run: Any) -> None:
        """Half a feed is an error, and nothing of it is published; later the complete feed is."""
        with pytest.raises(SourceError, match="the feed is cut off"):
            run(rss((1, "a"), (2, "b"))[:-cut])
        assert len(run(rss((1, "a"), (2, "b")))) == 2

    def test_entities(self, run: Any) -> None:
        """Entities that expand, or name a file, are not resolved."""
        levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
        doctype = f'<!DOCTYPE rss [<!ENTITY e0 "x">{levels}<!ENTITY file SYSTEM "file:///etc/hostname">]>'
        feed = rss((1, "&e9;&file;"), (2, "b")).replace("<rss", f"{doctype}<rss", 1)
        try:
            entries = run(feed)
        except SourceError:
            entries = []
        assert len(json.dumps(entries)) < 1000
        assert Path("/etc/hostname").read_text().strip() not in json.dumps(entries)

    def test_large(self, run: Any, tmp_path: Path, server: Server) -> None:
        """A feed over the limit, by default 32 MiB, is an error."""
        assert Running(FeedCollector, tmp_path, "url = x").make().config["download_max_size"] == 32 << 20
        server.says["/feed"] = answer(rss(*((number, "a") for number in range(9))).encode())
        limited = Running(FeedCollector, tmp_path, f"url = {server.url('/feed')}\ndownload_max_size = 500")
        with pytest.raises(SourceError, match="larger than 500"):
            limited.run()

    def test_extra(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without feedparser the error names the extra."""
        monkeypatch.setitem(sys.modules, "feedparser", None)
        with pytest.raises(ConfigError, match=r"a feed needs .*feedparser.*\[feed\]"):
            run(rss())
