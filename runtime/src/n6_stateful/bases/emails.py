"""A mail on standard input, as procmail or postfix hand it over: one mail, one message."""

from __future__ import annotations

import email
import email.policy
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from fnmatch import fnmatch
from functools import cached_property
from hashlib import blake2b
from typing import Any

from n6_stateful.bases.two_phase import BaseSimpleCollector
from n6_stateful.errors import PublishError, SourceError

HEADERS = ("From", "Date", "Subject")
TRY_AGAIN = 75  # EX_TEMPFAIL: whoever delivers mail keeps it, and tries again


class ParsedMail:
    """A mail, read for a collector.

    Args:
        raw: the mail as it came, headers and all.

    Raises:
        SourceError: it is not a mail.
    """

    def __init__(self, raw: bytes) -> None:
        message = email.message_from_bytes(raw, policy=email.policy.default)
        if not isinstance(message, EmailMessage) or not any(map(message.get, HEADERS)):
            raise SourceError(
                f"what came on standard input ({len(raw):,} bytes) is not a mail: it has none of "
                f"{', '.join(HEADERS)}; nothing was published"
            )
        self.message = message
        self.id = str(message.get("Message-ID", "")).strip()

    def get_utc_datetime(self) -> datetime | None:
        """The time in `Date`, UTC without a timezone; None if there is none that can be read."""
        moment: datetime | None = getattr(self.message.get("Date"), "datetime", None)
        if moment is None:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None)

    def get_subject(self) -> str | None:
        """The subject, decoded, on one line; None if there is none."""
        subject = self.message.get("Subject")
        return None if subject is None else " ".join(str(subject).split())

    def contents(
        self, content_type: str | Iterable[str] = "", filename_regex: str = ""
    ) -> Iterator[str | bytes]:
        """The parts: text decoded, anything else as bytes.

        Args:
            content_type: only these, like `text/plain` or `text/*`, or several of them; empty for all.
            filename_regex: only those whose file name it matches somewhere; empty for all.
        """
        wanted = [content_type or "*"] if isinstance(content_type, str) else list(content_type)
        for part in self.message.walk():
            if part.is_multipart() or not any(fnmatch(part.get_content_type(), each) for each in wanted):
                continue
            if filename_regex and not re.search(filename_regex, part.get_filename() or ""):
                continue
            payload: Any = part.get_payload(decode=True) or b""
            if part.get_content_maintype() != "text":
                yield payload
                continue
            try:
                yield payload.decode(part.get_content_charset("utf-8"), "replace")
            except LookupError:  # a character set that nobody knows
                yield payload.decode("utf-8", "replace")

    def find_content(
        self,
        *,
        content_type: str | Iterable[str] = "",
        filename_regex: str = "",
        content_regex: str = "",
        ignore_extra_matches: bool = False,
    ) -> str | bytes | None:
        """The part that is asked for; None if there is none.

        Args:
            content_type: as `contents` takes it.
            filename_regex: as `contents` takes it.
            content_regex: it matches somewhere in the part, which is text then.
            ignore_extra_matches: whether the first will do where there are several.

        Raises:
            ValueError: there are several.
        """
        found = [
            content
            for content in self.contents(content_type, filename_regex)
            if not content_regex or (isinstance(content, str) and re.search(content_regex, content))
        ]
        if len(found) > 1 and not ignore_extra_matches:
            raise ValueError(f"the mail has {len(found)} parts that would do")
        return found[0] if found else None


class BaseSimpleEmailCollector(BaseSimpleCollector):
    """Publishes one message made from the mail on standard input.

    To be written: `obtain_data_body`, which looks at `email_msg`. Nothing is remembered: a mail comes once.
    One that is delivered again after a failed run gives the same message ids.

    Args:
        raw_email_msg: the mail; None to read it from standard input when it is needed.
    """

    def __init__(self, *, raw_email_msg: bytes | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._raw_email_msg = raw_email_msg

    @cached_property
    def raw_email_msg(self) -> bytes:
        """The mail as it came.

        Raises:
            SourceError: there is none on standard input.
        """
        raw = self._raw_email_msg
        if raw is None:
            if sys.stdin is None or sys.stdin.isatty():
                raise SourceError("there is no mail on standard input; give it one: COMMAND < mail.eml")
            raw = sys.stdin.buffer.read()
        if not raw.strip():
            raise SourceError("the mail on standard input is empty; nothing was published")
        return raw

    @cached_property
    def email_msg(self) -> ParsedMail:
        """The mail, read."""
        return ParsedMail(self.raw_email_msg)

    def run(self) -> None:
        """Publish the mail's message."""
        about = self.email_msg.id.encode("utf-8", "surrogateescape") or self.raw_email_msg
        self.state_generation = blake2b(about, digest_size=16).hexdigest()
        self.state_generations = (self.state_generation,)
        try:
            super().run()
        except PublishError as exc:
            # With any other code postfix and procmail send the mail back, where it would be lost for us.
            exc.exit_code = TRY_AGAIN
            raise

    def get_output_prop_kwargs(
        self, *, source: str, output_data_body: bytes, **processed_data: Any
    ) -> dict[str, Any]:
        """Adds the headers `meta.mail_time` and `meta.mail_subject`."""
        properties = super().get_output_prop_kwargs(
            source=source, output_data_body=output_data_body, **processed_data
        )
        about = {"mail_time": self.email_msg.get_utc_datetime(), "mail_subject": self.email_msg.get_subject()}
        meta = {name: str(value) for name, value in about.items() if value is not None}
        if meta:
            properties["headers"].setdefault("meta", {}).update(meta)
        return properties

    def get_email_msg_text(self, content_type: str = "text/plain") -> str:
        """The one text of that type.

        Raises:
            SourceError: there is none, or several.
        """
        try:
            text = self.email_msg.find_content(content_type=content_type)
        except ValueError as exc:
            raise SourceError(f"{exc} as {content_type}; nothing was published") from exc
        if not isinstance(text, str):
            raise SourceError(f"the mail has no text of type {content_type}; nothing was published")
        return text
