"""A download gives a complete answer or one clear error, even from a server that does everything wrong."""

from __future__ import annotations

import gzip
import logging
import socket
import sys
import time
import tracemalloc
import zlib
from datetime import datetime
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
CODINGS: list[Any] = [(GZIP, gzip.compress), (DEFLATE, zlib.compress)]
coded = pytest.mark.parametrize(("header", "compress"), CODINGS, ids=["gzip", "zlib"])


def get(server: Server, say: Any, **kwargs: Any) -> Answer:
    server.says["/feed"] = say
    got = download(server.url("/feed?key=hush"), **kwargs)
    assert got is not None
    return got


def error_of(server: Server, say: Any, **kwargs: Any) -> str:
    """The error's text, which must be one line."""
    with pytest.raises(DownloadError) as caught:
        get(server, say, **kwargs)
    text = str(caught.value)
    assert text.isprintable()
    assert "hush" not in text
    assert f"127.0.0.1:{server.port}/feed?***: " in text
    return text


def endless(
    server: Server, *headers: str, status: str = "200 OK", pause: float = 0, part: bytes = bytes(1 << 20)
) -> Any:
    def send(_: bytes, to: socket.socket) -> None:
        to.sendall(answer(b"", *headers, status=status, length=10 << 30))
        while not server.wait(pause):
            to.sendall(part)

    return send


class TestWholeAnswers:
    @coded
    def test_encoded(self, header: str, compress: Any, server: Server) -> None:
        """gzip and what is called deflate are decoded, however the body's end is marked, and of any size."""
        body = compress(BODY)
        for say in (answer(body, header), chunked(body, header), answer(body, header, length=None)):
            assert get(server, say).content == BODY
        for size in (65535, 65536, 65537, 4 * 65536):  # of the pieces in which it is read
            assert get(server, answer(compress(bytes(size)), header)).content == bytes(size)
        if header == GZIP:  # one member may follow another
            assert get(server, answer(body + body, header)).content == BODY + BODY

    def test_plain(self, server: Server) -> None:
        """With a length, chunked, or ended by the connection, whose end may have been cut, unnoticed."""
        for say, is_known_whole in (
            (answer(BODY), True),
            (chunked(BODY), True),
            (answer(BODY, length=None), False),
        ):
            assert get(server, say)[:4:3] == (BODY, is_known_whole)

    @pytest.mark.parametrize("charset", ["utf-8-sig", "utf-16", "utf-32"])
    def test_byte_order_mark(self, charset: str, server: Server) -> None:
        """A byte order mark decides where the header names no character set, and is not part of the text."""
        assert get(server, answer("ż,1".encode(charset), "Content-Type: text/csv")).text == "ż,1"

    def test_times(self) -> None:
        """A time in a header is UTC; what is not a time is none."""
        assert as_datetime("Thu, 01 Jan 2026 00:00:00 -0000") == datetime(2026, 1, 1)
        assert as_datetime("Thu, 01 Jan 2026 01:00:00 +0100") == datetime(2026, 1, 1)
        assert [as_datetime(text) for text in (None, "", "soon", "Thu, 99 Jan 2026")] == [None] * 4


class TestHalfAnswers:
    @coded
    def test_encoded(self, header: str, compress: Any, server: Server) -> None:
        """Cut at any byte, it is an error, with or without a length; so is a cut second gzip member."""
        whole = compress(BODY)
        for cut in range(len(whole)):
            half = whole[:cut]
            for say in (
                answer(half, header, ETAG),
                answer(half, header, ETAG, length=None),
                answer(half, header, ETAG, length=len(whole)),
                chunked(half, header, ETAG),
                chunked(half, header, ETAG, whole=False),
            ):
                error_of(server, say, retries=0)
            if cut and header == GZIP:
                error_of(server, answer(whole + half, header), retries=0)
        assert "decompressing" in error_of(server, answer(whole + b"garbage", header), retries=0)

    def test_plain(self, server: Server) -> None:
        """Shorter than announced, or without its last chunk, it is an error at each byte."""
        for cut in range(len(BODY)):
            error_of(server, answer(BODY[:cut], length=len(BODY)), retries=0)
            error_of(server, chunked(BODY[:cut], whole=False), retries=0)

    @pytest.mark.parametrize("coding", ["br", "gzip, gzip", "zstd"])
    def test_unknown_encoding(self, coding: str, server: Server) -> None:
        """An encoding that was not requested is an error, not data."""
        text = error_of(server, answer(BODY, f"Content-Encoding: {coding}"), retries=0)
        assert f"encoded as {coding}, but only gzip was requested" in text

    @pytest.mark.parametrize("coding", ["aws-chunked", "none", "binary", "utf-8"])
    def test_no_encoding(self, coding: str, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """A name that is not a compression is ignored, with a warning."""
        assert get(server, answer(BODY, f"Content-Encoding: {coding}")).content == BODY
        assert f"Content-Encoding: {coding}: unknown, ignored" in caplog.text
        compressed = answer(gzip.compress(BODY), f"Content-Encoding: {coding},gzip")
        assert get(server, compressed).content == BODY

    def test_tried_again(self, server: Server) -> None:
        """Half an answer is retried."""
        says = [answer(BODY[:9], length=99), answer(gzip.compress(BODY)[:9], GZIP), answer(BODY)]
        assert get(server, lambda _, to: to.sendall(says.pop(0))).content == BODY


class TestOtherThanData:
    @pytest.mark.parametrize("status", [201, 202, 206, 300, 302, 304, 400, 401, 404, 410])
    def test_status(self, status: int, server: Server) -> None:
        """Only 200 is data; other final statuses are not retried."""
        assert f"answered {status} \\x1b[31m" in error_of(server, answer(BODY, status=f"{status} \x1b[31m"))
        assert len(server.requests) == 1

    @pytest.mark.parametrize("status", [408, 429, 500, 503])
    def test_passing_status(self, status: int, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """Transient errors are retried; the log shows the reason and the number of attempts."""
        assert f"answered {status} x" in error_of(server, answer(BODY, status=f"{status} x"))
        assert len(server.requests) == 3
        assert f"answered {status} x; attempt 2 of 4 follows" in caplog.text

    def test_unexpected(self, server: Server) -> None:
        """The caller can refuse by content type and beginning."""
        seen = []

        def is_expected(content_type: str, beginning: bytes) -> bool:
            seen.append((content_type, beginning))
            return False

        page = b"<!DOCTYPE html><title>Log in"
        text = error_of(server, answer(page, "Content-Type: Text/HTML; charset=x"), is_expected=is_expected)
        assert "unexpected content (text/html): b'<!DOCTYPE html>" in text
        assert seen == [("text/html", page)]

    @pytest.mark.parametrize("body", [b"<html>Log in", b'{"half": [1, 2', b"[" * 100_000, b"\xff"])
    def test_not_json(self, body: bytes, server: Server) -> None:
        """What is not JSON is an error of the source, which shows no more than its beginning."""
        with pytest.raises(SourceError, match="the answer is not JSON; it begins with") as caught:
            get(server, answer(body)).json()
        assert len(str(caught.value)) < 250

    @pytest.mark.parametrize("url", ["ftp://h/x", "file:///etc/passwd", "h/x", "http://", ""])
    def test_not_an_http_url(self, url: str) -> None:
        """Only http and https URLs can be downloaded."""
        with pytest.raises(ConfigError, match="must begin with http:// or https://"):
            download(url)


class TestValidators:
    def test_kept(self, server: Server) -> None:
        """They come with a whole answer, go with the next request of that URL, and 304 is None."""
        validators = get(server, answer(BODY, ETAG, LAST_MODIFIED)).validators
        server.says["/feed"] = answer(status="304 Not Modified")
        assert download(server.url("/feed?key=hush"), validators=validators) is None
        assert b'If-None-Match: "v1"\r\n' in server.requests[-1]
        assert b"If-Modified-Since: Thu, 01 Jan 2026" in server.requests[-1]
        server.says["/other"] = answer(BODY)
        download(server.url("/other"), validators=validators)
        assert b"If-None-Match" not in server.requests[-1]

    @pytest.mark.parametrize(("date", "is_kept"), [("00:00:00", False), ("00:00:01", True)])
    def test_changed_in_that_second(self, date: str, is_kept: bool, server: Server) -> None:
        """A file that changed in the second in which it was sent may change in it again, unseen."""
        got = get(server, answer(BODY, LAST_MODIFIED, f"Date: Thu, 01 Jan 2026 {date} GMT"))
        assert ("Last-Modified" in got.validators) == is_kept


class TestRedirects:
    @pytest.mark.parametrize("status", ["301 x", "302 x", "303 x", "307 x", "308 x"])
    def test_followed(self, status: str, server: Server) -> None:
        """To the same host, with all headers, and without reading the body of the redirect."""
        server.says["/new"] = answer(BODY)
        redirect = endless(server, "Location: new", status=status)
        assert get(server, redirect, headers={"X-Key": "hush"}, deadline=20).content == BODY
        assert b"X-Key: hush" in server.requests[-1]

    @pytest.mark.parametrize(
        ("to", "kwargs", "expected", "requests"),
        [
            ("/feed", {}, "Exceeded 30 redirects", 31),
            ("/new", {"allow_redirects": False}, "answered 302 x", 1),
            ("file:///etc/passwd?hush", {}, "InvalidSchema", 1),
            ("ftp://h/x", {}, "InvalidSchema", 1),
        ],
    )
    def test_not_followed(self, to: str, kwargs: Any, expected: str, requests: int, server: Server) -> None:
        """A circle ends; other schemes than http and https are not followed, and none at all on request."""
        assert expected in error_of(server, answer(b"", f"Location: {to}", status="302 x"), **kwargs)
        assert len(server.requests) == requests

    def test_another_host(self, server: Server) -> None:
        """Another host gets none of the headers meant for the first."""
        server.says["/new"] = answer(BODY)
        headers = {"Authorization": "hush", "COOKIE": "hush", "X-Key": "hush", "User-Agent": "n6"}
        to = f"Location: {server.url('/new', 'localhost')}"
        server.says["/feed"] = answer(b"", "Set-Cookie: a=hush", to, status="302 x")
        download(server.url("/feed?key=hush").replace("://", "://user:hush@"), headers=headers)
        assert b"hush" in server.requests[0]
        for secret in (b"hush", b"uthorization", b"ookie"):
            assert secret not in server.requests[1]
        assert b"User-Agent: n6" in server.requests[1]

    def test_data(self, server: Server) -> None:
        """Data for one host is not sent to another."""
        redirect = answer(b"", f"Location: {server.url('/new', 'localhost')}", status="307 x")
        text = error_of(server, redirect, method="POST", data={"key": "hush"})
        assert "which must not get the request's data" in text
        assert len(server.requests) == 1


class TestLimits:
    def test_dripping_body(self, server: Server) -> None:
        """A body that never ends, one byte at a time, ends at the deadline."""
        begun = time.monotonic()
        drip = endless(server, pause=0.05, part=b"x")
        assert "within the deadline" in error_of(server, drip, deadline=1, timeout=30)
        assert time.monotonic() - begun < 10

    def test_retry_after(self, server: Server) -> None:
        """A retry waits as long as the source asks for."""
        says = [answer(BODY, "Retry-After: 1", status="429 x"), answer(BODY)]
        with stamina.set_testing(False):
            begun = time.monotonic()
            assert get(server, lambda _, to: to.sendall(says.pop(0))).content == BODY
        assert time.monotonic() - begun >= 1

    def test_retry_after_the_deadline(self, server: Server) -> None:
        """If it is beyond the deadline, the run ends at once and says so."""
        text = error_of(server, answer(BODY, "Retry-After: 601", status="503 Busy"), deadline=600)
        assert "answered 503 Busy (Retry-After: 601)" in text
        assert len(server.requests) == 1

    def test_size(self, server: Server) -> None:
        """10 GiB end at the limit."""
        assert "larger than 1,000,000 bytes" in error_of(server, endless(server), size_limit=1_000_000)
        assert len(server.requests) == 1

    def test_bomb(self, server: Server) -> None:
        """The limit also holds for a small body that expands; it stops early."""
        deflator = zlib.compressobj(9, wbits=31)
        bomb = b"".join(deflator.compress(bytes(1 << 20)) for _ in range(256)) + deflator.flush()
        tracemalloc.start()
        try:
            assert "larger" in error_of(server, answer(bomb, GZIP), size_limit=1 << 20)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("say", "expected", "text"),
    [
        (answer(status="404 Not Found"), requests.HTTPError, "answered 404 Not Found"),
        (lambda _, to: to.close(), requests.ConnectionError, "Remote end closed"),
        (answer(b"half", length=99), requests.ConnectionError, "4 bytes read, 95 more expected"),
        (lambda _, to: to.recv(1), requests.Timeout, "timed out"),
        (lambda _, to: (to.sendall(answer(length=99)), to.recv(1)), requests.ConnectionError, "timed out"),
        (answer(b"no gzip", GZIP), requests.ConnectionError, "incorrect header check"),
        (
            answer(b"", "Location: ftp://h/", status="302 x"),
            requests.exceptions.InvalidSchema,
            "InvalidSchema",
        ),
    ],
    ids=["status", "no answer", "half", "silence", "silence in the body", "damaged", "redirected"],
)
def test_exceptions(say: Any, expected: type[Exception], text: str, server: Server) -> None:
    """Code that catches requests' exceptions catches these errors, too, and finds the response in them."""
    server.says["/feed"] = say
    with pytest.raises(expected, match=text) as caught:
        download(server.url(), retries=0, timeout=0.2)
    assert isinstance(caught.value, DownloadError)
    error: Any = caught.value
    assert error.status == (404 if expected is requests.HTTPError else 0)
    assert not error.status or error.response.status_code == 404


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

    @pytest.mark.parametrize(
        ("keywords", "expected"), [({"json": {"page": 1}}, b'{"page": 1}'), ({"data": {"a": "b"}}, b"a=b")]
    )
    def test_sent(self, keywords: dict[str, Any], expected: bytes, server: Server, collector: Any) -> None:
        """Data, JSON, parameters, cookies and logins go out as requests sends them; headers of the request
        come before those of the configuration, whatever their case."""
        received: list[bytes] = []

        def say(request: bytes, to: socket.socket) -> None:
            received.append(request.partition(b"\r\n\r\n")[2] or to.recv(99))
            to.sendall(answer(BODY))

        server.says["/feed"] = say
        keywords |= {"params": {"q": "1"}, "auth": ("u", "p"), "cookies": {"c": "d"}}
        keywords |= {"method": "POST", "custom_request_headers": {"x-both": "2", "accept-encoding": "br"}}
        assert collector.download(server.url(), **keywords) == BODY
        assert received == [expected]
        for part in (
            b"POST /feed?q=1 ",
            b"n: Basic dTpw",
            b"Cookie: c=d",
            b"X-Base: 1",
            b"X-Both: 2",
            b": gzip\r\n",
        ):
            assert part in server.requests[0]

    def test_head(self, server: Server, collector: Any) -> None:
        """HEAD gives the headers; the answer before the last one leaves nothing behind."""
        server.says["/feed"] = answer(b"", LAST_MODIFIED, GZIP, "X-Y: 1", length=99)
        assert collector.download(server.url(), method="HEAD") == b""
        assert collector.http_response.headers["x-y"] == "1"
        assert (collector.http_response.status_code, collector.http_response.url) == (200, server.url())
        assert collector.http_response.validators == {}
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
        """204, or an empty body where the class says so, is nothing new; with `allow_empty` it is a body."""
        server.says["/feed"] = said
        running = Running(DownloadingCollector, tmp_path)
        fetch: dict[str, Any] = {"fetch": lambda self: self.download(server.url())}
        assert running.run(allow_empty_body=True, **fetch) == []
        assert running.run(fetch=lambda self: self.download(server.url(), allow_empty=True) or None) == []
        if b"204" not in said:
            with pytest.raises(DownloadError, match="an empty body"):
                running.run(**fetch)

    @pytest.mark.parametrize("value", ["0", "(1, 2, 3)", "'x'", "[1, -1]"])
    def test_timeout(self, value: str, tmp_path: Path) -> None:
        """n6's converter `download_timeout` is there, and refuses what is not a timeout."""
        with pytest.raises(ConfigError, match="not a valid download_timeout: must be a number above 0"):
            Running(DownloadingCollector, tmp_path, f"download_timeout = {value}").make()

    def test_without_the_extra(self, collector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """One line names what to install."""
        monkeypatch.setitem(sys.modules, "stamina", None)
        monkeypatch.delitem(sys.modules, "n6_stateful.bases.http")
        with pytest.raises(ConfigError, match=r"needs the package stamina.*n6-stateful-runtime\[http\]"):
            collector.download("http://127.0.0.1/")


class TestSecrets:
    def test_shown(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """Nothing shows the query, the password, the parameters or a wrong header, not even at DEBUG."""
        caplog.set_level(logging.DEBUG)
        get(server, answer(BODY))
        error_of(server, answer(BODY[:5], length=50))
        with socket.create_server(("127.0.0.1", 0)) as closed:
            place = f"127.0.0.1:{closed.getsockname()[1]}"
        for url in (f"http://me:hush@{place}/it's?key=hush", f"http://{place}/?q='a' <b>&key=hush"):
            with pytest.raises(DownloadError, match=rf"{place}/.*\?\*\*\*: .*Connection refused") as caught:
                download(url, params={"token": "hush"}, retries=1)
            caplog.records.append(logging.makeLogRecord({"msg": str(caught.value)}))
        for wrong in ("http://[hush/", f"http://me:hush@{place}:x/"):
            with pytest.raises(DownloadError, match="cannot be requested: "):
                download(wrong)
        with pytest.raises(DownloadError, match=r"cannot be requested: (InvalidHeader|ValueError)"):
            download(f"http://{place}/", headers={"X-Key": "hush\n"})
        assert not [record for record in caplog.records if "hush" in record.getMessage()]

    def test_netrc(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`.netrc` replaces neither a header that the code set nor the user in the URL."""
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        get(server, answer(BODY), headers={"authorization": "Bearer mine"})
        download(server.url().replace("://", "://user:word@"))
        get(server, answer(BODY))
        assert b"uthorization: Bearer mine" in server.requests[0]
        assert b"Authorization: Basic dXNlcjp3b3Jk" in server.requests[1]
        assert b"Authorization: Basic b3RoZXI6b3RoZXI=" in server.requests[2]
