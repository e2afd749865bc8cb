"""A mail on standard input: one message, or one clear error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import PublishError, SourceError
from n6_stateful.bases.emails import BaseSimpleEmailCollector, ParsedMail
from n6_stateful.errors import Terminated
from n6_stateful.output.forwarding import forward
from n6_stateful.output.spool import Spool
from n6_stateful.testing import MemoryOutput
from tests.bases.running import Running


class MailCollector(BaseSimpleEmailCollector):
    type = "file"
    content_type = "text/csv"
    config_spec = "[feed]\nsource :: str\ncache_dir :: path\n"

    def get_source_channel(self, **processed_data: Any) -> str:
        subject = self.email_msg.get_subject() or ""
        return "scans" if "scans" in subject else "other"

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
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    running = Running(MailCollector, tmp_path)

    def give(raw: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))

    running.give = give  # type: ignore[attr-defined]
    return running


def run(running: Any, raw: bytes) -> Any:
    """What arrives of a mail on standard input."""
    running.give(raw)
    return running.run()


class TestMessage:
    """What becomes of a mail."""

    def test_published(self, running: Running) -> None:
        """The body, the channel from the subject, and the mail's time and subject as headers."""
        (message,) = run(running, mail())
        assert message.body == b"a,b\n"
        assert message.routing_key == "provider.scans"
        assert message.properties["content_type"] == "text/csv"
        assert message.properties["headers"] == {
            "meta": {"mail_time": "2026-01-02 03:04:05", "mail_subject": "Daily scans: ż"}
        }

    def test_spooled_twins(self, running: Running, tmp_path: Path) -> None:
        """A spool keeps a mail once, though it was forwarded, and other mails have come since."""
        spool = Spool(tmp_path / "spool")
        output = MemoryOutput()
        for number in (1, 2, 1, 3, 2):
            running.give(mail(f"{number}", f"<{number}@feed.example>"))  # type: ignore[attr-defined]
            running.run(make_output=lambda self: spool)
            forward(spool, output)
        assert [message.body for message in output.delivered] == [b"1\n", b"2\n", b"3\n"]

    def test_twins(self, running: Running) -> None:
        """A mail that is delivered again has the same id; another mail with the same text has another."""
        first, again, other = (
            run(running, raw)[0].properties["message_id"]
            for raw in (mail(), b"Received: again\n" + mail(), mail(message_id="<2@feed.example>"))
        )
        assert first == again != other

    def test_nothing(self, running: Any) -> None:
        """A mail that holds nothing to publish is no error."""
        running.give(mail())
        assert running.run(obtain_data_body=lambda self: None) == []


class TestTryAgain:
    """What whoever delivers the mail goes by."""

    def test_broker_down(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        """A broker that is down asks for the mail to be delivered again, not to be sent back."""
        running.give(mail())  # type: ignore[attr-defined]
        with pytest.raises(PublishError) as caught:
            running.run(make_output=lambda self: MemoryOutput(fails=True))
        assert caught.value.exit_code == 75

    def test_terminated(self, running: Running) -> None:
        """So does a run that is ended on its way."""

        def start_publishing(collector: Any) -> None:
            raise Terminated

        running.give(mail())  # type: ignore[attr-defined]
        with pytest.raises(Terminated) as caught:
            running.run(start_publishing=start_publishing)
        assert caught.value.exit_code == 75

    def test_others_refused(self, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        """What the broker has refused of other mails is told, and does not have this one sent back."""
        output = MemoryOutput()
        output.problem = "1 message is set apart"
        running.give(mail())  # type: ignore[attr-defined]
        problems = []

        def run_handling(collector: Any) -> None:
            MailCollector.run_handling(collector)
            problems.append(collector.delivery_problem)

        running.run(make_output=lambda self: output, run_handling=run_handling)
        assert problems == [None]
        assert "1 message is set apart" in caplog.text


class TestNoMail:
    """What is not a mail."""

    @pytest.mark.parametrize(
        ("raw", "told"),
        [
            (b"", "is empty"),
            (b"\n \n", "is empty"),
            (b"just text\n", "is not a mail"),
            (b"\x00\xff" * 100, "is not a mail"),
            (b"%PDF-1.4\nX: y\n\n", "is not a mail"),
        ],
    )
    def test_garbage(self, raw: bytes, told: str, running: Running) -> None:
        """It is one clear error, and nothing is published."""
        with pytest.raises(SourceError, match=told):
            run(running, raw)
        assert running.arrived == []

    def test_terminal(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        """At a terminal it does not wait for a mail to be typed."""
        parent, child = os.openpty()
        with os.fdopen(child) as terminal:
            monkeypatch.setattr(sys, "stdin", terminal)
            with pytest.raises(SourceError, match="no mail on standard input"):
                running.run()
        os.close(parent)

    def test_check(self, running: Running) -> None:
        """Whoever only makes the collector, as `check` does, needs no mail."""
        code = (
            "from n6_stateful import settings\n"
            "from tests.bases.test_emails import MailCollector\n"
            f"with settings.use(settings.Settings(config_paths=({str(running._config)!r},), dry_run=True)):\n"
            "    MailCollector()\n"
        )
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=root, timeout=60)
        assert done.returncode == 0


class TestParsedMail:
    """Looking into a mail."""

    def with_parts(self) -> ParsedMail:
        message = EmailMessage()
        message["Subject"] = "café and more"
        message.set_content("see https://feed.example/1")
        message.add_alternative("<p>see</p>", subtype="html")
        message.add_attachment(b"PK\x03", maintype="application", subtype="zip", filename="report.zip")
        return ParsedMail(bytes(message))

    def test_find(self) -> None:
        """Parts are found by type, file name and content."""
        parsed = self.with_parts()
        assert parsed.get_subject() == "café and more"
        assert parsed.get_utc_datetime() is None
        assert parsed.find_content(content_type="text/html") == "<p>see</p>\n"
        assert parsed.find_content(filename_regex=r"\.zip$") == b"PK\x03"
        assert parsed.find_content(content_regex="https://") == "see https://feed.example/1\n"
        assert parsed.find_content(content_type="text/csv") is None
        assert parsed.find_content(content_type=["text/csv", "text/h*"]) == "<p>see</p>\n"
        with pytest.raises(ValueError, match="2 parts for see; nothing was published"):
            parsed.find_content(content_regex="see")
        assert parsed.find_content(content_regex="see", ignore_extra_matches=True)

    @pytest.mark.parametrize(
        ("header", "expected"),
        [("Fri, 02 Jan 2026 03:04:05 -0000", datetime(2026, 1, 2, 3, 4, 5)), ("yesterday", None), ("", None)],
    )
    def test_date(self, header: str, expected: datetime | None) -> None:
        """A date that cannot be read is none."""
        raw = f"From: a@b.example\nDate: {header}\n\nx".encode()
        assert ParsedMail(raw).get_utc_datetime() == expected

    @pytest.mark.parametrize("charset", ["no-such-charset", "utf-8", "us-ascii"])
    def test_charset(self, charset: str) -> None:
        """Text in a character set that nobody knows, or that it is not in, is read as well as can be."""
        raw = f"From: a@b.example\nContent-Type: text/plain; charset={charset}\n\ncaf".encode() + b"\xe9"
        assert str(ParsedMail(raw).find_content()).startswith("caf")

    def test_bytes(self, caplog: pytest.LogCaptureFixture) -> None:
        """Text in another character set than the mail says is told, and its bytes are there."""
        raw = b"From: a@b.example\nContent-Type: text/csv\n\n\xa3\xf3d\xbc"
        assert ParsedMail(raw).find_content(decode=False) == b"\xa3\xf3d\xbc"
        assert not caplog.text
        ParsedMail(raw).find_content()
        assert "text is not in 'utf-8', so that some of it is replaced" in caplog.text
        assert "find_content(decode=False) gives its bytes" in caplog.text

    def test_cut_original(self) -> None:
        """What is not asked for, as an original that a report of abuse has cut, may be damaged."""
        raw = b"From: a@b.example\nContent-Type: multipart/report; boundary=b\n\n"
        raw += b"--b\nContent-Type: text/csv\n\n192.0.2.1\n--b\nContent-Type: message/rfc822\n\n"
        raw += b"From: x\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\ncut\n--b--\n"
        assert ParsedMail(raw).find_content(content_type="text/csv") == "192.0.2.1"
        with pytest.raises(SourceError, match="the mail is damaged"):
            ParsedMail(raw).find_content(content_type="text/plain")

    @pytest.mark.parametrize("charset", ["undefined", "idna", '"a\0b"'])
    def test_odd_charset(self, charset: str) -> None:
        """No name of a character set is more than that."""
        raw = f"From: a@b.example\nContent-Type: text/plain; charset={charset}\n\ncaf\xe9".encode()
        assert ParsedMail(raw).find_content() == "caf\xe9"

    def test_broken_headers(self) -> None:
        """Headers that Python's own code fails at are none; a part with such headers is left out."""
        head = b"From: a@b.example\nMessage-ID: <a@[x>\nContent-Type: multipart/mixed; boundary=b\n\n"
        parsed = ParsedMail(
            head + b"--b\nContent-Disposition: attachment; filename*=utf-16''r.csv\n\nx\n--b\n\ntext\n--b--\n"
        )
        assert (parsed.id, parsed.find_content()) == ("", "text")

    @pytest.mark.parametrize(
        "head",
        [
            b"From: Reports <",
            b'From: "',
            b"Subject: x\nDate: Fri, 31 Dec 9999 23:00:00 -2300",
            b"Subject: =?utf-7?Q?+2AA-?=",
        ],
    )
    def test_hostile_headers(self, head: bytes, running: Running) -> None:
        """A mail with headers that Python's own code fails at is published all the same."""
        (message,) = run(running, head + b"\n\ntext\n")
        assert message.body == b"text\n"

    @pytest.mark.parametrize(
        "part",
        [
            b"\ncut\n",
            b"Content-Transfer-Encoding: base64\n\n!!!notbase64\n--b--\n",
            b"Content-Transfer-Encoding: base64\n\ndGltZSxpcAoyMD\n--b--\n",
            b"Content-Transfer-Encoding: base64\n\ndGltZSxpcAoyM\n--b--\n",
        ],
        ids=["no end", "not base64", "cut", "cut in the middle of a byte"],
    )
    def test_damaged(self, part: bytes) -> None:
        """A mail that was cut or damaged on its way is an error, not a part of what it was."""
        head = (
            b"From: a@b.example\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/csv\n"
        )
        with pytest.raises(SourceError, match="the mail is damaged"):
            ParsedMail(head + part).find_content()
