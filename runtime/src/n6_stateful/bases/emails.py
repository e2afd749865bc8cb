"""Mails on standard input, as procmail or postfix pass them: one mail, one message."""

from __future__ import annotations

import base64
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import EmailPolicy
from fnmatch import fnmatch
from functools import cached_property
from hashlib import blake2b
from typing import Any

from n6_stateful.bases.answer import DownloadError, as_datetime, decoded
from n6_stateful.bases.base import PAGE, with_meta
from n6_stateful.bases.two_phase import BaseSimpleCollector
from n6_stateful.errors import N6StatefulError, PublishError, SourceError, Terminated
from n6_stateful.journal import Journal

LOGGER = logging.getLogger(__name__)

TRY_AGAIN = 75  # EX_TEMPFAIL: the mail server keeps the mail and retries
FLAGS = re.MULTILINE | re.DOTALL  # n6's
Criteria = str | bytes | re.Pattern[Any] | Iterable[str | bytes | re.Pattern[Any]] | None
_DAMAGE = re.compile("CloseBoundaryNotFound|InvalidBase64")


class SeveralPartsError(SourceError, ValueError):
    """A mail has several parts where one was expected."""


class _Policy(EmailPolicy):
    def header_fetch_parse(self, name: str, value: str) -> Any:
        try:
            return super().header_fetch_parse(name, value)
        except Exception as exc:  # Python's parser may raise anything on a broken header
            LOGGER.warning("a header of the mail cannot be read (%s: %s)", type(exc).__name__, exc)
            return ""


class ParsedMail(EmailMessage):
    """A parsed mail: an `email.message.EmailMessage` whose unreadable headers are empty."""

    @classmethod
    def from_bytes(cls, raw: bytes) -> ParsedMail:
        """Parse `raw`.

        Raises:
            SourceError: it is not a mail.
        """
        mail: Any = message_from_bytes(raw, cls, policy=_Policy())
        if not mail.keys():
            raise SourceError(
                f"this is not a mail: {len(raw):,} bytes without headers; nothing was published"
            )
        return mail  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a mail has no {name!r} here; {PAGE} lists what is missing compared with n6")

    def get_utc_datetime(self) -> datetime | None:
        """The time in `Date`, UTC without a timezone; None if it is missing or unreadable."""
        return as_datetime(self["Date"])

    def get_timestamp(self) -> float | None:
        """The time in `Date`, in seconds since 1970; None if it is missing or unreadable."""
        moment = self.get_utc_datetime()
        return moment.replace(tzinfo=UTC).timestamp() if moment else None

    def get_subject(self, *, normalize_whitespace: bool = True) -> str | None:
        """The subject, decoded; None if there is none.

        Args:
            normalize_whitespace: whether to return a single line, with single spaces.
        """
        if not self["Subject"]:
            return None
        text = str(self["Subject"]).encode(errors="replace").decode()
        return " ".join(text.split()) if normalize_whitespace else text

    def find_filename_content_pairs(
        self,
        *,
        content_type: str | Iterable[str] | None = None,
        filename_regex: Criteria = None,
        content_regex: Criteria = None,
        default_regex_flags: int = FLAGS,
        force_content_as: Any = None,
    ) -> Iterator[tuple[str, str | bytes]]:
        """The file names (or "") and contents of the parts that match all criteria. A criterion may be a
        list, of which one must match.

        Args:
            content_type: like `text/plain` or `text/*`; None for any.
            filename_regex: searched for in the file name.
            content_regex: searched for in the content; text or bytes, like the content.
            default_regex_flags: for patterns that are not compiled.
            force_content_as: `bytes` or `str`, for all parts. By default text is `str`, with LF line ends,
                and everything else bytes.

        Raises:
            SourceError: the mail was cut or damaged in transit.
        """
        types = [content_type or "*"] if isinstance(content_type, str | None) else content_type
        for part, *above in _parts(self):
            filename, kind = part.get_filename(""), part.get_content_type()
            is_of_type = any(fnmatch(kind, wanted.lower()) for wanted in types)
            if not is_of_type or not _matches(filename_regex, filename, default_regex_flags):
                continue
            content: Any = part.get_payload(decode=True) or b""
            for defect in (defect for message in (part, *above) for defect in message.defects):
                if _DAMAGE.match(problem := type(defect).__name__):
                    raise SourceError(f"the mail is damaged ({problem}); nothing was published")
            if force_content_as in (str, "str") or (kind.startswith("text/") and not force_content_as):
                charset = part.get_content_charset("utf-8")
                content = decoded(content, charset, "find_content(decode=False) gives")
                content = content.replace("\r\n", "\n").replace("\r", "\n")
            if _matches(content_regex, content, default_regex_flags):
                yield filename, content

    def find_content(
        self, *, ignore_extra_matches: bool = False, decode: bool = True, **criteria: Any
    ) -> str | bytes | None:
        """The content of the one matching part; None if no part matches.

        Args:
            ignore_extra_matches: whether to return the first of several matches.
            decode: False to get text as bytes, too, for mails that declare a wrong character set.
            criteria: those of `find_filename_content_pairs`.

        Raises:
            SeveralPartsError: several parts match.
            SourceError: the mail was cut or damaged in transit.
        """
        if not decode:
            criteria["force_content_as"] = bytes
        contents = [content for _, content in self.find_filename_content_pairs(**criteria)]
        if len(contents) > 1 and not ignore_extra_matches:
            raise SeveralPartsError(f"{len(contents)} parts match {criteria}; nothing was published")
        return contents[0] if contents else None


def _parts(*path: Any) -> Iterator[tuple[Any, ...]]:
    """Each part that has no parts itself, followed by the parts that contain it."""
    message = path[0]
    if not message.is_multipart():
        yield path
        return
    inner = message.get_payload()
    if str(message.get("Content-Transfer-Encoding", "")).strip().lower() == "base64":
        with suppress(ValueError, TypeError, SourceError):  # the standard allows it, Python does not
            inner = [ParsedMail.from_bytes(base64.b64decode(inner[0].get_payload()))]
    for part in inner:
        yield from _parts(part, *path)


def _matches(patterns: Criteria, value: Any, flags: int) -> bool:
    several: Any = [patterns] if isinstance(patterns, str | bytes | re.Pattern) else patterns
    regexes = (re.compile(one, 0 if isinstance(one, re.Pattern) else flags) for one in several or ())
    return several is None or any(type(one.pattern) is type(value) and one.search(value) for one in regexes)


class BaseSimpleEmailCollector(BaseSimpleCollector):
    """Publishes one message made from the mail on standard input.

    To be written: `obtain_data_body`, which reads `email_msg`. Nothing is remembered, since a mail arrives
    once; if it arrives again after a failed run, its message has the same id. A failure before the message is
    committed ends with exit code 75, so that the mail server keeps the mail; an unexpected mail
    (`SourceError`) ends with 66.

    Args:
        raw_email_msg: the mail; None to read it from standard input when it is needed.
    """

    def __init__(self, *, raw_email_msg: bytes | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._raw_email_msg = raw_email_msg

    @cached_property
    def raw_email_msg(self) -> bytes:
        """The mail as received."""
        return sys.stdin.buffer.read() if self._raw_email_msg is None else self._raw_email_msg

    @cached_property
    def email_msg(self) -> ParsedMail:
        """The parsed mail."""
        return ParsedMail.from_bytes(self.raw_email_msg)

    def open_journal(self) -> Journal:
        """As in the base class."""
        with self._mail_kept():
            return super().open_journal()

    def run_collection(self) -> None:
        """As in the base class, but a failed delivery is only a warning."""
        with self._mail_kept():
            super().run_collection()

    def run(self) -> None:
        """Publish the mail's message."""
        about = str(self.email_msg["Message-ID"] or "").strip().encode(errors="surrogateescape")
        self.base_id = blake2b(about or self.raw_email_msg, digest_size=16).hexdigest()
        super().run()

    @contextmanager
    def _mail_kept(self) -> Iterator[None]:
        try:
            yield
        except (N6StatefulError, Terminated) as exc:
            if isinstance(exc, PublishError) and exc is self._undelivered:
                LOGGER.warning("%s", exc)
                return
            if isinstance(exc, DownloadError) or not isinstance(exc, SourceError):
                exc.exit_code = TRY_AGAIN
            raise

    def get_output_prop_kwargs(self, **processed_data: Any) -> dict[str, Any]:
        """Adds the headers `meta.mail_time` and `meta.mail_subject`."""
        properties, mail = super().get_output_prop_kwargs(**processed_data), self.email_msg
        return with_meta(properties, mail_time=mail.get_utc_datetime(), mail_subject=mail.get_subject())

    def get_email_msg_text(self, content_type: str = "text/plain") -> str:
        """The one text part of that type.

        Raises:
            SourceError: there is none, or several.
        """
        text = self.email_msg.find_content(content_type=content_type)
        if not isinstance(text, str):
            raise SourceError(f"the mail has no text of type {content_type}; nothing was published")
        return text
