"""A mail on standard input, as procmail or postfix hand it over: one mail, one message."""

from __future__ import annotations

import email
import email.policy
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email import errors
from email.message import EmailMessage
from fnmatch import fnmatch
from functools import cached_property
from hashlib import blake2b
from typing import Any

from n6_stateful.bases.text import decoded
from n6_stateful.bases.two_phase import BaseSimpleCollector
from n6_stateful.errors import PublishError, SourceError, Terminated

LOGGER = logging.getLogger(__name__)

HEADERS = ("From", "Date", "Subject")
TRY_AGAIN = 75  # EX_TEMPFAIL: whoever delivers mail keeps it, and tries again
_DAMAGE = {
    errors.CloseBoundaryNotFoundDefect: "it ends before its last part does",
    errors.InvalidBase64CharactersDefect: "a part is not the base64 that it says",
    errors.InvalidBase64LengthDefect: "a part of it in base64 was cut",
    errors.InvalidBase64PaddingDefect: "a part of it in base64 was cut",
}


class SeveralPartsError(SourceError, ValueError):
    """A mail has more parts of a kind than one."""


class ParsedMail:
    """A mail, read for a collector.

    Args:
        raw: the mail as it came, headers and all.

    Raises:
        SourceError: it is not a mail.
    """

    def __init__(self, raw: bytes) -> None:
        message: Any = email.message_from_bytes(raw, policy=email.policy.default)
        self.message: EmailMessage = message
        if not any(name in message for name in HEADERS):
            raise SourceError(
                f"what came on standard input ({len(raw):,} bytes) is not a mail: it has none of "
                f"{', '.join(HEADERS)}; nothing was published"
            )
        self.id = str(self._header("Message-ID") or "").strip()

    def _header(self, name: str) -> Any:
        with suppress(Exception):  # Python's own code fails at some that are broken
            return self.message.get(name)
        return None

    def get_utc_datetime(self) -> datetime | None:
        """The time in `Date`, UTC without a timezone; None if there is none that can be read."""
        moment: datetime | None = getattr(self._header("Date"), "datetime", None)
        with suppress(OverflowError):
            return moment and moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).replace(tzinfo=None)
        return None

    def get_subject(self) -> str | None:
        """The subject, decoded, on one line; None if there is none."""
        subject = self._header("Subject")
        return None if subject is None else " ".join(str(subject).encode(errors="replace").decode().split())

    def contents(
        self, content_type: str | Iterable[str] = "", filename_regex: str = "", *, decode: bool = True
    ) -> Iterator[str | bytes]:
        """The parts: text decoded, anything else as bytes.

        Args:
            content_type: only these, like `text/plain` or `text/*`, or several of them; empty for all.
            filename_regex: only those whose file name it matches somewhere; empty for all.
            decode: False to have text as bytes, too, where its character set is not what the mail says.

        Raises:
            SourceError: the mail was cut or damaged on its way.
        """
        wanted = [content_type or "*"] if isinstance(content_type, str) else list(content_type)
        for part, *above in _parts(self.message):
            try:
                kind, filename = part.get_content_type(), part.get_filename() or ""
                charset = part.get_content_charset("utf-8")
            except Exception as exc:  # as in _header
                LOGGER.warning("a part of the mail is left out: its headers cannot be read (%s)", exc)
                continue
            if not any(fnmatch(kind, each) for each in wanted):
                continue
            if filename_regex and not re.search(filename_regex, filename):
                continue
            payload: Any = part.get_payload(decode=True) or b""
            for defect in (defect for each in (part, *above) for defect in each.defects):
                if problem := _DAMAGE.get(type(defect)):
                    raise SourceError(f"the mail is damaged: {problem}; nothing was published")
            is_text = decode and kind.startswith("text/")
            yield decoded(payload, charset, "find_content(decode=False) gives") if is_text else payload

    def find_content(
        self,
        *,
        content_type: str | Iterable[str] = "",
        filename_regex: str = "",
        content_regex: str = "",
        ignore_extra_matches: bool = False,
        decode: bool = True,
    ) -> str | bytes | None:
        """The part that is asked for; None if there is none.

        Args:
            content_type: as `contents` takes it.
            filename_regex: as `contents` takes it.
            content_regex: it matches somewhere in the part, which is text then.
            ignore_extra_matches: whether the first will do where there are several.
            decode: as `contents` takes it.

        Raises:
            SeveralPartsError: there are several.
            SourceError: the mail was cut or damaged on its way.
        """
        found = [
            content
            for content in self.contents(content_type, filename_regex, decode=decode)
            if not content_regex or (isinstance(content, str) and re.search(content_regex, content))
        ]
        if len(found) > 1 and not ignore_extra_matches:
            asked = " ".join(filter(None, (str(content_type), filename_regex, content_regex))) or "anything"
            raise SeveralPartsError(f"the mail has {len(found)} parts for {asked}; nothing was published")
        return found[0] if found else None


def _parts(*path: Any) -> Iterator[tuple[Any, ...]]:
    """Each part that is not made of others, behind it those that it is a part of."""
    if not path[0].is_multipart():
        yield path
        return
    for part in path[0].get_payload():
        yield from _parts(part, *path)


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
        self.base_id = blake2b(about, digest_size=16).hexdigest()
        try:
            super().run()
        except (PublishError, Terminated) as exc:
            # With any other code postfix and procmail send the mail back, where it would be lost for us.
            exc.exit_code = TRY_AGAIN
            raise
        if self.delivery_problem is not None:  # of other mails: this one is safe
            LOGGER.warning("%s", self.delivery_problem)
            self.delivery_problem = None

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
        text = self.email_msg.find_content(content_type=content_type)
        if not isinstance(text, str):
            raise SourceError(f"the mail has no text of type {content_type}; nothing was published")
        return text
