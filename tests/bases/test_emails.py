"""A mail on standard input: one message, or one clear error."""

from __future__ import annotations

import base64
import io
import re
import sys
from datetime import datetime
from email.message import EmailMessage
from typing import Any

import pytest

from n6_stateful import PublishError, SourceError, StateError
from n6_stateful.bases.answer import DownloadError
from n6_stateful.bases.emails import BaseSimpleEmailCollector, ParsedMail
from n6_stateful.errors import Terminated
from n6_stateful.journal import Journal
from tests.bases.running import Running

HEAD = b"From: a@b.example\nContent-Type: multipart/mixed; boundary=b\n\n"
BASE64 = b"Content-Transfer-Encoding: base64\n\n"


class MailCollector(BaseSimpleEmailCollector):
    type = "file"
    content_type = "text/csv"
    config_spec = "[feed]\nsource :: str\ncache_dir :: path\n"

    def get_source_channel(self, **processed_data: Any) -> str:
        return "scans" if "scans" in (self.email_msg.get_subject() or "") else "other"

    def obtain_data_body(self) -> bytes | None:
        return self.get_email_msg_text().encode()


def mail(text: str = "a,b\n", message_id: str = "<1@feed.example>") -> bytes:
    """A mail with one text."""
    message = EmailMessage()
    message["From"] = "reports@feed.example"
    message["Date"] = "Fri, 02 Jan 2026 05:04:05 +0200"
    message["Subject"] = "Daily scans: ż"
    message["Message-ID"] = message_id
    message.set_content(text)
    return bytes(message)


@pytest.fixture
def running(tmp_path: Any) -> Running:
    return Running(MailCollector, tmp_path)


def run(running: Running, raw: bytes, **members: Any) -> Any:
    """What arrives of a mail on standard input."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        return running.run(**members)


class TestMessage:
    """What becomes of a mail."""

    def test_published(self, running: Running) -> None:
        """The body, the channel from the subject, and the mail's time and subject as headers."""
        (message,) = run(running, mail())
        assert (message.body, message.routing_key) == (b"a,b\n", "provider.scans")
        assert message.properties["content_type"] == "text/csv"
        assert message.properties["headers"] == {
            "meta": {"mail_time": "2026-01-02 03:04:05", "mail_subject": "Daily scans: ż"}
        }

    def test_ids(self, running: Running) -> None:
        """A mail that is delivered again has the same id; another mail with the same text has another id; one
        with nothing to publish is not an error."""
        first, again, other = (
            run(running, raw)[0].properties["message_id"]
            for raw in (mail(), b"Received: again\n" + mail(), mail(message_id="<2@feed.example>"))
        )
        assert first == again != other
        assert run(running, mail(), obtain_data_body=lambda self: None) == []


class TestExitCode:
    """The exit code for the mail server: with 75 it keeps the mail, with others it returns it."""

    def test_broker_down(self, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """A mail that is safe in the outbox is done; the next run delivers it."""
        running.broker.is_down = True
        assert run(running, mail()) == []
        assert "is down" in caplog.text
        running.broker.is_down = False
        run(running, mail(message_id="<2@feed.example>"))
        assert len(running.arrived) == 2

    @pytest.mark.parametrize("error", [Terminated(), DownloadError("no answer"), StateError("full")])
    def test_not_committed(self, error: BaseException, running: Running) -> None:
        """After a transient failure before the commit, the server is asked to deliver the mail again."""

        def start_publishing(collector: Any) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            run(running, mail(), start_publishing=start_publishing)
        assert getattr(caught.value, "exit_code", 0) == 75

    @pytest.mark.parametrize(("method", "error"), [("open", StateError("no")), ("put", PublishError("no"))])
    def test_journal(
        self, method: str, error: Any, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So it does if the journal cannot be opened, or is full."""

        def fail(journal: Journal, *args: Any) -> None:
            raise error

        monkeypatch.setattr(type(running.make().journal), method, fail)
        with pytest.raises(type(error)) as caught:
            run(running, mail())
        assert caught.value.exit_code == 75

    @pytest.mark.parametrize("raw", [b"", b"\n \n", b"just text\n", b"\x00\xff" * 100, b"%PDF-1.4\nX: y\n\n"])
    def test_garbage(self, raw: bytes, running: Running) -> None:
        """What is not a mail is one clear error, which no second delivery repairs; to make a collector, as
        `check` does, needs no mail."""
        running.make()
        with pytest.raises(SourceError, match="is not a mail") as caught:
            run(running, raw)
        assert caught.value.exit_code == 66
        assert running.arrived == []


class TestFindContent:
    """Parts of a mail, by n6's criteria."""

    @pytest.fixture
    def parsed(self) -> ParsedMail:
        message = EmailMessage()
        message["Subject"] = "café   and more"
        message["X-Report"] = "7"
        message.set_content("see\nhttps://feed.example/1")
        message.add_alternative("<p>see</p>", subtype="html")
        message.add_attachment(b"PK\x03", maintype="application", subtype="zip", filename="report.zip")
        return ParsedMail.from_bytes(bytes(message).replace(b"\n", b"\r\n"))

    @pytest.mark.parametrize(
        ("criteria", "expected"),
        [
            ({"content_type": "TEXT/Html"}, "<p>see</p>\n"),
            ({"content_type": ["text/csv", "text/h*"]}, "<p>see</p>\n"),
            ({"content_type": "text/csv"}, None),
            ({"content_type": None, "filename_regex": r"\.zip$"}, b"PK\x03"),
            ({"filename_regex": [r"\.csv$", r"\.zip$"]}, b"PK\x03"),
            ({"content_regex": "^https://"}, "see\nhttps://feed.example/1\n"),
            ({"content_regex": "see.https"}, "see\nhttps://feed.example/1\n"),
            ({"content_regex": re.compile("HTTPS", re.IGNORECASE)}, "see\nhttps://feed.example/1\n"),
            ({"content_regex": "^https", "default_regex_flags": 0}, None),
            ({"content_regex": ["nothing", rb"PK\x03"]}, b"PK\x03"),
            ({"content_type": "text/html", "decode": False}, b"<p>see</p>\r\n"),
            ({"content_type": "text/html", "force_content_as": bytes}, b"<p>see</p>\r\n"),
            ({"filename_regex": "zip", "force_content_as": "str"}, "PK\x03"),
        ],
    )
    def test_find(self, criteria: dict[str, Any], expected: str | bytes | None, parsed: ParsedMail) -> None:
        """By type, file name and content: `^` begins a line, `.` is any character, LF ends a line."""
        assert parsed.find_content(**criteria) == expected

    def test_several(self, parsed: ParsedMail) -> None:
        """Several matching parts are an error that names the criteria, unless the first is accepted."""
        with pytest.raises(ValueError, match="2 parts match "):
            parsed.find_content(content_regex="see")
        assert parsed.find_content(content_regex="see", ignore_extra_matches=True)

    def test_headers(self, parsed: ParsedMail) -> None:
        """The mail's headers are there by name; its subject is on one line, or as it came; what else n6's
        mail has is an error that names the page."""
        assert parsed["x-report"] == "7"
        assert parsed.get_subject() == "café and more"
        assert parsed.get_subject(normalize_whitespace=False) == "café   and more"
        with pytest.raises(AttributeError, match=r"no 'ZIP' here; .*from-n6\.md"):
            parsed.ZIP  # noqa: B018

    @pytest.mark.parametrize(
        ("header", "expected"),
        [("Fri, 02 Jan 2026 03:04:05 -0000", datetime(2026, 1, 2, 3, 4, 5)), ("yesterday", None), ("", None)],
    )
    def test_date(self, header: str, expected: datetime | None) -> None:
        """An unreadable date is None."""
        parsed = ParsedMail.from_bytes(f"From: a@b.example\nDate: {header}\n\nx".encode())
        assert parsed.get_utc_datetime() == expected
        assert parsed.get_timestamp() == (expected and 1767323045.0)


class TestBrokenMails:
    """Mails that break a standard, by accident or on purpose."""

    @pytest.mark.parametrize(
        "charset", ["no-such-charset", "utf-8", "us-ascii", "undefined", "idna", '"a\0b"']
    )
    def test_charset(self, charset: str, caplog: pytest.LogCaptureFixture) -> None:
        """Text in an unknown or wrong character set is read as far as possible, with a warning; its bytes are
        available."""
        raw = f"From: a@b.example\nContent-Type: text/plain; charset={charset}\n\ncaf".encode() + b"\xe9"
        parsed = ParsedMail.from_bytes(raw)
        assert parsed.find_content(decode=False) == b"caf\xe9"
        assert not caplog.text
        assert str(parsed.find_content()).startswith("caf")
        assert "so some of it was replaced" in caplog.text

    def test_mail_in_base64(self) -> None:
        """A mail inside a mail may be encoded."""
        part = b"Content-Type: message/rfc822\n" + BASE64 + base64.encodebytes(mail("192.0.2.1\n"))
        parsed = ParsedMail.from_bytes(HEAD + b"--b\n" + part + b"\n--b--\n")
        assert parsed.find_content(content_type="text/plain") == "192.0.2.1\n"

    def test_part_with_broken_headers(self, caplog: pytest.LogCaptureFixture) -> None:
        """A part with a file name that crashes Python's parser is read, without a name."""
        part = b"--b\nContent-Disposition: attachment; filename*=utf-16''r.csv\n\nx\n--b--\n"
        parsed = ParsedMail.from_bytes(b"Message-ID: <a@[x>\n" + HEAD + part)
        assert (parsed["Message-ID"], list(parsed.find_filename_content_pairs())) == ("", [("", "x")])
        assert "a header of the mail cannot be read" in caplog.text

    @pytest.mark.parametrize(
        "head",
        [
            b"To: no Date, From or Subject",
            b"From: Reports <",
            b'From: "',
            b"Subject: x\nDate: Fri, 31 Dec 9999 23:00:00 -2300",
            b"Subject: =?utf-7?Q?+2AA-?=",
            b"Subject: x\nContent-Type: text/plain; charset*=utf-16''x",
            b"Subject: x\nContent-Disposition: =?x?Q?",
        ],
    )
    def test_hostile_headers(self, head: bytes, running: Running) -> None:
        """A mail with few headers, or with headers that crash Python's parser, is still published."""
        assert [message.body for message in run(running, head + b"\n\ntext\n")] == [b"text\n"]

    def test_cut_original(self) -> None:
        """Other parts may be damaged, such as a truncated original in an abuse report."""
        raw = HEAD + b"--b\nContent-Type: text/csv\n\n192.0.2.1\n--b\nContent-Type: message/rfc822\n\n"
        raw += b"From: x\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\ncut\n--b--\n"
        assert ParsedMail.from_bytes(raw).find_content(content_type="text/csv") == "192.0.2.1"
        with pytest.raises(SourceError, match="the mail is damaged"):
            ParsedMail.from_bytes(raw).find_content(content_type="text/plain")

    @pytest.mark.parametrize(
        "part",
        [
            b"\ncut\n",
            *(BASE64 + cut + b"\n--b--\n" for cut in (b"!!!not", b"dGltZSxpcAoyMD", b"dGltZSxpcAoyM")),
        ],
        ids=["no end", "not base64", "cut", "cut in the middle of a byte"],
    )
    def test_damaged(self, part: bytes) -> None:
        """A mail that was cut or damaged in transit is an error; no part of it is published."""
        with pytest.raises(SourceError, match="the mail is damaged"):
            ParsedMail.from_bytes(HEAD + b"--b\nContent-Type: text/csv\n" + part).find_content()
