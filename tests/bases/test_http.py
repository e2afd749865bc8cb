"""One download, done once: a whole answer or one clear error, from a server that does everything wrong."""

from __future__ import annotations

import gzip
import logging
import socket
import subprocess
import sys
import time
import tracemalloc
import zlib
from datetime import datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import requests
import stamina

from n6_stateful import ConfigError, SourceError
from n6_stateful.bases import BaseDownloadingCollector, BaseSimpleCollector, DownloadError
from n6_stateful.bases.answer import Answer, as_datetime
from n6_stateful.bases.http import download
from tests.bases.http_server import Server, answer, chunked
from tests.bases.running import Running

BODY = b"".join(b"%d,2026-01-01,record\n" % number for number in range(30))
GZIP = "Content-Encoding: gzip"
DEFLATE = "Content-Encoding: deflate"
ETAG = 'ETag: "v1"'
LAST_MODIFIED = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"


def encoded(body: bytes, coding: str) -> bytes:
    """`body` as gzip, or as zlib has it, which HTTP calls deflate."""
    deflator = zlib.compressobj(wbits={"gzip": 31, "zlib": 15}[coding])
    return deflator.compress(body) + deflator.flush()


CODINGS = {coding: encoded(BODY, coding) for coding in ("gzip", "zlib")}
HEADER = {"gzip": GZIP, "zlib": DEFLATE}


def get(server: Server, say: Any, **kwargs: Any) -> Answer | None:
    server.says["/feed"] = say
    return download(server.url("/feed?key=hush"), **kwargs)


def body_of(server: Server, say: Any, **kwargs: Any) -> bytes:
    got = get(server, say, **kwargs)
    assert got is not None
    return got.content


def error_of(server: Server, say: Any, **kwargs: Any) -> str:
    """The one line that the error says."""
    with pytest.raises(SourceError) as caught:
        get(server, say, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    assert "hush" not in text
    assert f"127.0.0.1:{server.port}/feed" in text
    return text


class TestWholeAnswers:
    @pytest.mark.parametrize("coding", CODINGS)
    def test_encoded(self, coding: str, server: Server) -> None:
        """gzip and both of what is called deflate are decoded."""
        assert body_of(server, answer(CODINGS[coding], HEADER[coding])) == BODY
        assert body_of(server, chunked(CODINGS[coding], HEADER[coding])) == BODY
        assert body_of(server, answer(CODINGS[coding], HEADER[coding], length=None)) == BODY

    def test_plain(self, server: Server) -> None:
        """With a length, chunked, or ended by the connection, whose end may have been cut, unnoticed."""
        for say, is_known_whole in (
            (answer(BODY), True),
            (chunked(BODY), True),
            (answer(BODY, length=None), False),
        ):
            got = get(server, say)
            assert got is not None
            assert (got.content, got.is_known_whole) == (BODY, is_known_whole)

    def test_several_gzip_members(self, server: Server) -> None:
        """Members one behind the other are one body."""
        parts = gzip.compress(BODY[:100]) + gzip.compress(BODY[100:])
        assert body_of(server, answer(parts, GZIP)) == BODY

    def test_large_pieces(self, server: Server) -> None:
        """A body that inflates to exactly the size of the pieces it is taken in loses nothing."""
        for size in (65535, 65536, 65537, 4 * 65536):
            for coding in ("gzip", "zlib"):
                body = bytes(size)
                assert body_of(server, answer(encoded(body, coding), HEADER[coding])) == body

    @pytest.mark.parametrize("charset", ["utf-8-sig", "utf-16", "utf-32"])
    def test_byte_order_mark(self, charset: str, server: Server) -> None:
        """A byte order mark decides where the header names no character set, and is not part of the text."""
        got = get(server, answer("ż,1".encode(charset), "Content-Type: text/csv"))
        assert got is not None
        assert got.text == "ż,1"

    @pytest.mark.parametrize(("allow_empty", "expected"), [(False, None), (True, b"")])
    def test_no_content(self, allow_empty: bool, expected: bytes | None, server: Server) -> None:
        """204 means that there is nothing new, or is the empty body that was allowed."""
        got = get(server, answer(status="204 No Content", length=None), allow_empty=allow_empty)
        assert (got and got.content) == expected

    def test_times(self) -> None:
        """A time in a header is UTC; what is not a time is none."""
        assert as_datetime("2026-01-01T01:00:00+01:00") == datetime(2026, 1, 1)
        assert as_datetime("Thu, 01 Jan 2026 00:00:00 -0000") == datetime(2026, 1, 1)
        assert as_datetime("Thu, 01 Jan 2026 01:00:00 +0100") == datetime(2026, 1, 1)
        assert [as_datetime(each) for each in (None, "", "soon", "Thu, 99 Jan 2026")] == [None] * 4


class TestHalfAnswers:
    @pytest.mark.parametrize("coding", CODINGS)
    def test_encoded(self, coding: str, server: Server) -> None:
        """Cut at each byte, whatever the length says, it is an error."""
        whole = CODINGS[coding]
        for cut in range(len(whole)):
            half = whole[:cut]
            for say in (
                answer(half, HEADER[coding], ETAG),
                answer(half, HEADER[coding], ETAG, length=None),
                answer(half, HEADER[coding], ETAG, length=len(whole)),
                chunked(half, HEADER[coding], ETAG),
                chunked(half, HEADER[coding], ETAG, whole=False),
            ):
                error_of(server, say, retries=0)

    def test_plain(self, server: Server) -> None:
        """Shorter than announced, or without its last chunk, it is an error at each byte."""
        for cut in range(len(BODY)):
            error_of(server, answer(BODY[:cut], length=len(BODY)), retries=0)
            error_of(server, chunked(BODY[:cut], whole=False), retries=0)

    def test_second_member(self, server: Server) -> None:
        """A gzip body whose second member is cut is an error, and so is garbage behind the first."""
        second = gzip.compress(BODY)
        for cut in range(1, len(second)):
            error_of(server, answer(gzip.compress(BODY) + second[:cut], GZIP), retries=0)
        assert "damaged" in error_of(server, answer(second + b"garbage", GZIP), retries=0)
        error_of(server, answer(zlib.compress(BODY) + b"x", DEFLATE), retries=0)

    def test_unknown_encoding(self, server: Server) -> None:
        """What was not asked for is not taken for data."""
        for coding in ("br", "gzip, gzip", "zstd"):
            told = error_of(server, answer(BODY, f"Content-Encoding: {coding}"), retries=0)
            assert f"encoded as {coding}, and only gzip was asked for" in told

    @pytest.mark.parametrize("coding", ["aws-chunked", "none", "binary", "utf-8"])
    def test_no_encoding(self, coding: str, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """A name that is not a compression is read as if it were not there, with a warning."""
        assert body_of(server, answer(BODY, f"Content-Encoding: {coding}")) == BODY
        assert f"Content-Encoding: {coding}: read as if it were not there" in caplog.text
        compressed = answer(CODINGS["gzip"], f"Content-Encoding: {coding},gzip")
        assert body_of(server, compressed) == BODY

    def test_tried_again(self, server: Server) -> None:
        """A half answer is asked for again."""
        says = [answer(BODY[:9], length=99), answer(CODINGS["gzip"][:9], GZIP), answer(BODY)]
        assert body_of(server, lambda _, to: to.sendall(says.pop(0))) == BODY


class TestOtherThanData:
    @pytest.mark.parametrize(
        "status",
        ["201 Created", "202 Accepted", "206 Partial Content", "300 Multiple Choices",
         "302 Found", "304 Not Modified", "400 Bad Request", "401 Unauthorized", "404 Not Found", "410 Gone"],
    )  # fmt: skip
    def test_status(self, status: str, server: Server) -> None:
        """Only 200 is data, and what else is final is not asked for again."""
        assert f"answered {status}" in error_of(server, answer(BODY, status=status))
        assert len(server.requests) == 1

    @pytest.mark.parametrize("status", ["408 x", "429 x", "500 x", "502 x", "503 x", "504 x"])
    def test_passing_status(self, status: str, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """Transient errors are asked for again, and the log says why, and how often that may be."""
        assert f"answered {status}" in error_of(server, answer(BODY, status=status))
        assert len(server.requests) == 3
        assert f"answered {status}; attempt 2 of 4 follows" in caplog.text

    def test_unexpected(self, server: Server) -> None:
        """The caller can refuse by content type and beginning."""
        seen = []

        def is_expected(content_type: str, beginning: bytes) -> bool:
            seen.append((content_type, beginning))
            return False

        page = b"<!DOCTYPE html><title>Log in"
        text = error_of(server, answer(page, "Content-Type: Text/HTML; charset=x"), is_expected=is_expected)
        assert "(text/html), beginning b'<!DOCTYPE html>" in text
        assert seen == [("text/html", page)]

    @pytest.mark.parametrize("body", [b"<html>Log in", b'{"half": [1, 2', b"[" * 100_000, b"\xff"])
    def test_not_json(self, body: bytes, server: Server) -> None:
        """What is not JSON is an error of the source, which shows no more than its beginning."""
        server.says["/feed"] = answer(body)
        got = download(server.url())
        assert got is not None
        with pytest.raises(SourceError, match="answered with something else than JSON, beginning") as caught:
            got.json()
        assert len(str(caught.value)) < 250

    def test_terminal_sequences(self, server: Server) -> None:
        """What the server says is shown without the power over a terminal."""
        assert "\x1b" not in error_of(server, answer(status="404 \x1b[31mred"))

    @pytest.mark.parametrize("url", ["ftp://h/x", "file:///etc/passwd", "h/x", "http://", "http://[x/", ""])
    def test_not_an_http_url(self, url: str) -> None:
        """Only http and https URLs can be downloaded."""
        with pytest.raises(ConfigError, match="must begin with http:// or https://"):
            download(url)

    @pytest.mark.parametrize("url", ["http://127.0.0.1:9/it's?key=hush", "http://127.0.0.1:9/?q='a'&key=hush",
                                     "http://127.0.0.1:9/?q=a <b>&key=hush"])  # fmt: skip
    def test_secret(self, url: str, caplog: pytest.LogCaptureFixture) -> None:
        """What follows the `?` is not shown, whatever else is in the URL."""
        with pytest.raises(SourceError, match=r"\?\*\*\*: ") as caught:
            download(url, retries=1)
        assert "hush" not in str(caught.value) + caplog.text


class TestValidators:
    def test_kept(self, server: Server) -> None:
        """They come with a whole answer, go with the next request, and 304 is None."""
        got = get(server, answer(BODY, ETAG, LAST_MODIFIED))
        assert got is not None
        assert get(server, answer(status="304 Not Modified"), validators=got.validators) is None
        assert b'If-None-Match: "v1"\r\n' in server.requests[-1]
        assert b"If-Modified-Since: Thu, 01 Jan 2026" in server.requests[-1]

    def test_other_url(self, server: Server) -> None:
        """Those of another URL are not sent."""
        server.says["/other"] = server.says["/feed"] = answer(BODY, ETAG)
        first = download(server.url("/other"))
        assert first is not None
        download(server.url(), validators=first.validators)
        assert b"If-None-Match" not in server.requests[-1]

    @pytest.mark.parametrize(("date", "is_kept"), [("00:00:00", False), ("00:00:01", True)])
    def test_changed_in_that_second(self, date: str, is_kept: bool, server: Server) -> None:
        """A file that changed in the second in which it was sent may change in it again, unseen."""
        got = get(server, answer(BODY, LAST_MODIFIED, f"Date: Thu, 01 Jan 2026 {date} GMT"))
        assert got is not None
        assert ("Last-Modified" in got.validators) == is_kept


class TestRedirects:
    def redirect(self, to: str, status: str = "302 Found") -> bytes:
        return answer(b"", f"Location: {to}", status=status)

    @pytest.mark.parametrize("status", ["301 x", "302 x", "303 x", "307 x", "308 x"])
    def test_followed(self, status: str, server: Server) -> None:
        """To the same host, with all headers."""
        server.says["/new"] = answer(BODY)
        assert body_of(server, self.redirect("new", status), headers={"X-Key": "hush"}) == BODY
        assert b"X-Key: hush" in server.requests[-1]

    def test_circle(self, server: Server) -> None:
        """A circle ends."""
        assert "Exceeded 30 redirects" in error_of(server, self.redirect("/feed"))
        assert len(server.requests) == 31

    @pytest.mark.parametrize("to", ["file:///etc/passwd?hush", "ftp://h/x", "gopher://h/"])
    def test_elsewhere(self, to: str, server: Server) -> None:
        """What is neither http nor https is not followed."""
        assert "neither an http nor" in error_of(server, self.redirect(to))

    def test_another_host(self, server: Server) -> None:
        """Another host gets none of what is meant for the first."""
        server.says["/new"] = answer(BODY)
        headers = {"Authorization": "hush", "COOKIE": "hush", "X-Key": "hush", "User-Agent": "n6"}
        server.says["/feed"] = answer(
            b"", "Set-Cookie: a=hush", f"Location: {server.url('/new', 'localhost')}", status="302 x"
        )
        url = server.url("/feed?key=hush").replace("://", "://user:hush@")
        got = download(url, headers=headers)
        assert got is not None
        assert b"hush" in server.requests[0]
        for secret in (b"hush", b"uthorization", b"ookie"):
            assert secret not in server.requests[1]
        assert b"User-Agent: n6" in server.requests[1]

    def test_data(self, server: Server) -> None:
        """What was to be sent to one host is not sent to another."""
        to = server.url("/new", "localhost")
        told = error_of(server, self.redirect(to, "307 x"), method="POST", data={"key": "hush"})
        assert "which the request's data is not for" in told
        assert len(server.requests) == 1

    def test_endless_body(self, server: Server) -> None:
        """The body of a redirect is not read."""

        def send(_: bytes, to: socket.socket) -> None:
            to.sendall(answer(b"", "Location: /new", status="302 Found", length=10 << 30))
            while not server.wait(0):
                to.sendall(bytes(1 << 20))

        server.says["/new"] = answer(BODY)
        assert body_of(server, send, deadline=20) == BODY


class TestTime:
    def test_dripping_body(self, server: Server) -> None:
        """One byte now and then, for ever, ends with the deadline."""

        def drip(_: bytes, to: socket.socket) -> None:
            to.sendall(answer(b"", length=10**9))
            while not server.wait(0.05):
                to.sendall(b"x")

        begun = time.monotonic()
        assert "within 1 s" in error_of(server, drip, deadline=1, timeout=30)
        assert time.monotonic() - begun < 10

    def test_silence(self, server: Server) -> None:
        """A server that says nothing is given up after `timeout`."""
        assert "timed out" in error_of(server, lambda *_: server.wait(9) and None, timeout=0.2, retries=0)

    def test_no_server(self) -> None:
        """A port where nobody listens is one clear error."""
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        with pytest.raises(SourceError, match=rf"http://127.0.0.1:{port}/x\?\*\*\*: .*Connection refused"):
            download(f"http://me:hush@127.0.0.1:{port}/x?key=hush")

    @pytest.mark.parametrize("status", ["429 x", "503 x"])
    def test_retry_after(self, status: str, server: Server) -> None:
        """The time that the source names is waited for."""
        says = [answer(BODY, "Retry-After: 1", status=status), answer(BODY)]
        with stamina.set_testing(False):
            begun = time.monotonic()
            assert body_of(server, lambda _, to: to.sendall(says.pop(0))) == BODY
        assert time.monotonic() - begun >= 1

    @pytest.mark.parametrize("is_date", [False, True])
    def test_retry_after_the_deadline(self, is_date: bool, server: Server) -> None:
        """If it is beyond the deadline, the run ends at once and says so."""
        when = formatdate(time.time() + 9000, usegmt=True) if is_date else "601"
        text = error_of(server, answer(BODY, f"Retry-After: {when}", status="503 Busy"), deadline=600)
        assert "answered 503 Busy, and asks to wait" in text
        assert len(server.requests) == 1


class TestSize:
    def test_endless(self, server: Server) -> None:
        """10 GiB end at the limit."""

        def send(_: bytes, to: socket.socket) -> None:
            to.sendall(answer(b"", length=10 << 30))
            while not server.wait(0):
                to.sendall(bytes(1 << 20))

        assert "larger than 1,000,000 bytes" in error_of(server, send, size_limit=1_000_000)
        assert len(server.requests) == 1

    def test_bomb(self, server: Server) -> None:
        """The limit holds for what a small body becomes, long before it has become that."""
        deflator = zlib.compressobj(9, wbits=31)
        bomb = b"".join(deflator.compress(bytes(1 << 20)) for _ in range(256)) + deflator.flush()
        tracemalloc.start()
        try:
            assert "larger" in error_of(server, answer(bomb, GZIP), size_limit=1 << 20)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


class TestExceptions:
    """Whoever catches what requests raises catches these, too."""

    def test_status(self, server: Server) -> None:
        """A wrong status is `requests.HTTPError`, with the response."""
        server.says["/feed"] = answer(status="404 Not Found")
        with pytest.raises(requests.HTTPError, match="answered 404 Not Found") as caught:
            download(server.url())
        assert isinstance(caught.value, DownloadError)
        assert isinstance(caught.value, SourceError)
        assert (caught.value.response.status_code, caught.value.status) == (404, 404)

    @pytest.mark.parametrize(
        ("say", "expected"),
        [
            (lambda _, to: to.close(), requests.ConnectionError),
            (answer(b"half", length=99), requests.ConnectionError),
            (lambda _, to: to.recv(1), requests.Timeout),
            (lambda _, to: (to.sendall(answer(b"half", length=99)), to.recv(1)), requests.Timeout),
            (answer(b"no gzip", GZIP), OSError),
            (answer(b"", "Location: ftp://h/", status="302 x"), requests.exceptions.InvalidSchema),
        ],
        ids=["no answer", "half", "silence", "silence in the body", "damaged", "redirected"],
    )
    def test_others(self, say: Any, expected: type[Exception], server: Server) -> None:
        """A lost connection is `requests.ConnectionError`, silence `requests.Timeout`, and so on."""
        server.says["/feed"] = say
        with pytest.raises(expected) as caught:
            download(server.url(), retries=0, timeout=0.2)
        assert isinstance(caught.value, DownloadError)


class DownloadingCollector(BaseDownloadingCollector, BaseSimpleCollector):
    raw_type = "stream"
    source_channel = "c"
    config_spec_pattern = "[feed]\nsource :: str\ncache_dir :: path\ndownload_timeout = 9 :: download_timeout"
    fetch: Any

    def obtain_data_body(self) -> Any:
        return self.fetch()


class TestCollector:
    """Downloads by the methods of a collector, with the names of n6."""

    @pytest.fixture
    def collector(self, tmp_path: Path) -> Any:
        options = "download_retries = 0\nbase_request_headers = {'X-Base': '1', 'X-Both': '1'}"
        return Running(DownloadingCollector, tmp_path, options).make()

    @pytest.mark.parametrize("keywords", [{"json": {"page": 1}}, {"data": {"a": "b"}}])
    def test_sent(self, keywords: dict[str, Any], server: Server, collector: Any) -> None:
        """Data, JSON, parameters, cookies and logins go out as requests sends them."""
        received: list[bytes] = []

        def say(request: bytes, to: socket.socket) -> None:
            received.append(request.partition(b"\r\n\r\n")[2] or to.recv(99))
            to.sendall(answer(BODY))

        server.says["/feed"] = say
        assert (
            collector.download(
                server.url(),
                method="POST",
                params={"q": "1"},
                auth=("u", "p"),
                cookies={"c": "d"},
                **keywords,
            )
            == BODY
        )
        assert received in ([b'{"page": 1}'], [b"a=b"])
        head = server.requests[0]
        for part in (b"POST /feed?q=1 ", b"Authorization: Basic dTpw", b"Cookie: c=d", b"X-Base: 1"):
            assert part in head

    def test_headers(self, server: Server, collector: Any) -> None:
        """Headers of the request come before those of the configuration, whatever their case."""
        server.says["/feed"] = answer(BODY)
        collector.download(server.url(), custom_request_headers={"x-both": "2"})
        assert b"X-Both: 2" in server.requests[0]

    def test_redirects(self, server: Server, collector: Any) -> None:
        """`allow_redirects=False` makes a redirect an error."""
        server.says["/feed"] = answer(b"", "Location: /new", status="302 Found")
        with pytest.raises(requests.HTTPError, match="answered 302"):
            collector.download(server.url(), allow_redirects=False)

    def test_head(self, server: Server, collector: Any) -> None:
        """HEAD gives the headers; the answer before the last one leaves nothing behind."""
        server.says["/feed"] = answer(b"", LAST_MODIFIED, "X-Y: 1", length=99)
        assert collector.download(server.url(), method="HEAD") == b""
        assert collector.http_response.headers["x-y"] == "1"
        assert collector.http_last_modified == datetime(2026, 1, 1)
        collector._http_last_modified = None
        assert collector.http_last_modified is None

    def test_performer(self, server: Server, collector: Any) -> None:
        """A performer gives the body in pieces, and what requests' response has."""
        server.says["/feed"] = answer(
            "ż".encode("iso8859-2"), LAST_MODIFIED, "Content-Type: x; charset=iso8859-2"
        )
        with collector.request_performer(server.url(), stream=True) as performer:
            response = performer.response
            assert (response.status_code, response.ok, response.reason) == (200, True, "OK")
            assert (response.url, response.encoding, response.text) == (server.url(), "iso8859-2", "ż")
            assert performer.get_dt_header("Last-Modified") == datetime(2026, 1, 1)
        server.says["/feed"] = answer(BODY)
        with collector.request_performer(server.url(), chunk_size=10) as performer:
            assert next(performer) == BODY[:10]
            assert b"".join(performer) == BODY[10:]

    @pytest.mark.parametrize("said", [answer(status="204 No Content", length=None), answer(b"")])
    def test_nothing(self, said: bytes, server: Server, tmp_path: Path) -> None:
        """204, or an empty body where the class says so, is nothing new, not an error."""
        server.says["/feed"] = said
        running = Running(DownloadingCollector, tmp_path)
        fetch: dict[str, Any] = {"fetch": lambda self: self.download(server.url())}
        assert running.run(allow_empty_body=True, **fetch) == []
        if b"204" not in said:
            with pytest.raises(DownloadError, match="an empty body"):
                running.run(**fetch)

    @pytest.mark.parametrize("value", ["0", "(1, 2, 3)", "'x'", "[1, -1]"])
    def test_timeout(self, value: str, tmp_path: Path) -> None:
        """n6's converter `download_timeout` is there, and refuses what is not a timeout."""
        with pytest.raises(ConfigError, match="not a valid download_timeout: must be a number above 0"):
            Running(DownloadingCollector, tmp_path, f"download_timeout = {value}").make()


class TestSecrets:
    def test_debug_log(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """Not even at DEBUG does anything log the query."""
        caplog.set_level(logging.DEBUG)
        get(server, answer(BODY))
        error_of(server, answer(BODY[:5], length=50))
        with pytest.raises(SourceError) as caught:
            download("http://127.0.0.1:9/x", params={"token": "hush"}, retries=0)
        assert "hush" not in caplog.text + str(caught.value)


class TestEnvironment:
    def test_netrc(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`.netrc` replaces neither a header that the code set nor the URL's user."""
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        get(server, answer(BODY), headers={"authorization": "Bearer mine"})
        download(server.url().replace("://", "://user:word@"))
        get(server, answer(BODY))
        assert b"uthorization: Bearer mine" in server.requests[0]
        assert b"Authorization: Basic dXNlcjp3b3Jk" in server.requests[1]
        assert b"Authorization: Basic b3RoZXI6b3RoZXI=" in server.requests[2]

    def test_without_the_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One line says what to install."""
        monkeypatch.setitem(sys.modules, "stamina", None)
        monkeypatch.delitem(sys.modules, "n6_stateful.bases.http")
        with pytest.raises(ConfigError, match=r"needs the package stamina.*n6-stateful-runtime\[http\]"):
            Running(DownloadingCollector, tmp_path).make().download("http://127.0.0.1/")

    def test_import(self) -> None:
        """Importing the shapes imports none of the libraries."""
        program = "import sys, n6_stateful.bases; print('requests' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.stdout == "False\n", done.stderr


def test_only_what_was_asked_for(server: Server) -> None:
    """The request names the encodings that can be checked, and no others."""
    get(server, answer(BODY), headers={"accept-encoding": "br"})
    assert b"Accept-Encoding: gzip\r\n" in server.requests[0]
