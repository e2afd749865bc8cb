"""A mail on standard input, as procmail or postfix hand it over: one mail, one message."""

from __future__ import annotations

import base64
import email
import email.policy
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email import errors
from email.message import EmailMessage
from fnmatch import fnmatch
from functools import cached_property
from hashlib import blake2b
from typing import Any, cast

from n6_stateful.bases.answer import DownloadError
from n6_stateful.bases.base import PAGE
from n6_stateful.bases.text import decoded
from n6_stateful.bases.two_phase import BaseSimpleCollector
from n6_stateful.errors import N6StatefulError, PublishError, SourceError, Terminated
from n6_stateful.journal import Journal

LOGGER = logging.getLogger(__name__)

TRY_AGAIN = 75  # EX_TEMPFAIL: the mail server keeps the mail, and tries again
FLAGS = re.MULTILINE | re.DOTALL  # n6's
Regex = str | bytes | re.Pattern[Any]
_DAMAGE = {
    errors.CloseBoundaryNotFoundDefect: "it ends before its last part does",
    errors.InvalidBase64CharactersDefect: "a part is not the base64 that it says",
    errors.InvalidBase64LengthDefect: "a part of it in base64 was cut",
    errors.InvalidBase64PaddingDefect: "a part of it in base64 was cut",
}


class SeveralPartsError(SourceError, ValueError):
    """A mail has more parts of a kind than one."""


class ParsedMail(EmailMessage):
    """A mail, read for a collector: an `email.message.EmailMessage`, in which headers that Python cannot read
    count as absent.

    Attributes:
        raw_message_source: the mail as it came, headers and all; None for a part of a mail.
    """

    raw_message_source: bytes | None = None

    @classmethod
    def from_bytes(cls, raw: bytes) -> ParsedMail:
        """The mail in `raw`.

        Raises:
            SourceError: it is not a mail.
        """
        mail: Any = email.message_from_bytes(raw, cls, policy=email.policy.default)
        if not mail.keys():
            raise SourceError(
                f"what came on standard input ({len(raw):,} bytes) is not a mail: it has no headers; nothing "
                "was published"
            )
        mail.raw_message_source = raw
        return cast(ParsedMail, mail)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a mail has no {name!r} here; of what n6's has, {PAGE} says what is missing")

    def get(self, name: str, failobj: Any = None) -> Any:
        """A header; `failobj` if there is none that can be read."""
        return _readable(lambda: super(ParsedMail, self).get(name, failobj), failobj)

    @property
    def id(self) -> str:
        """The header `Message-ID`, or empty."""
        return str(self.get("Message-ID", "")).strip()

    def get_utc_datetime(self) -> datetime | None:
        """The time in `Date`, UTC without a timezone; None if there is none that can be read."""
        moment: datetime | None = getattr(self["Date"], "datetime", None)
        with suppress(OverflowError):
            return moment and moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).replace(tzinfo=None)
        return None

    def get_timestamp(self) -> float | None:
        """The time in `Date`, in seconds since 1970; None if there is none that can be read."""
        moment = self.get_utc_datetime()
        return None if moment is None else moment.replace(tzinfo=UTC).timestamp()

    def get_subject(self, *, normalize_whitespace: bool = True) -> str | None:
        """The subject, decoded; None if there is none.

        Args:
            normalize_whitespace: whether it becomes one line, with single spaces.
        """
        subject = self["Subject"]
        if subject is None:
            return None
        text = str(subject).encode(errors="replace").decode()
        return " ".join(text.split()) if normalize_whitespace else text

    def find_filename_content_pairs(
        self,
        *,
        content_type: str | Iterable[str] | None = None,
        filename_regex: Regex | Iterable[Regex] | None = None,
        content_regex: Regex | Iterable[Regex] | None = None,
        default_regex_flags: int = FLAGS,
        force_content_as: Any = None,
    ) -> Iterator[tuple[str, str | bytes]]:
        """The file names (or "") and contents of the parts that all of these fit, or one of several each.

        Args:
            content_type: like `text/plain` or `text/*`; None for any.
            filename_regex: it matches somewhere in the file name.
            content_regex: it matches somewhere in the content, and is text or bytes as the content is.
            default_regex_flags: for patterns that are not compiled yet.
            force_content_as: `bytes` or `str`, for all parts. By default text is `str`, with LF at line ends,
                and anything else bytes.

        Raises:
            SourceError: the mail was cut or damaged on its way.
        """
        types = [content_type or "*"] if isinstance(content_type, str | None) else list(content_type)
        for part, *above in _parts(self):
            kind = part.get_content_type()
            filename = _readable(part.get_filename) or ""
            if not any(_is_of(kind, wanted) for wanted in types):
                continue
            if not _matches(filename_regex, filename, default_regex_flags):
                continue
            content: Any = part.get_payload(decode=True) or b""
            for defect in (defect for message in (part, *above) for defect in message.defects):
                if problem := _DAMAGE.get(type(defect)):
                    raise SourceError(f"the mail is damaged: {problem}; nothing was published")
            is_text = force_content_as in (str, "str") or kind.startswith("text/")
            if is_text and force_content_as not in (bytes, "bytes"):
                charset = _readable(part.get_content_charset) or "utf-8"
                content = decoded(content, charset, "find_content(decode=False) gives")
                content = content.replace("\r\n", "\n").replace("\r", "\n")
            if _matches(content_regex, content, default_regex_flags):
                yield filename, content

    def find_content(
        self, *, ignore_extra_matches: bool = False, decode: bool = True, **criteria: Any
    ) -> str | bytes | None:
        """The part that is asked for; None if there is none.

        Args:
            ignore_extra_matches: whether the first will do where there are several.
            decode: False to have text as bytes, too, where its character set is not what the mail says.
            criteria: as `find_filename_content_pairs` takes them.

        Raises:
            SeveralPartsError: there are several.
            SourceError: the mail was cut or damaged on its way.
        """
        if not decode:
            criteria["force_content_as"] = bytes
        contents = [content for _, content in self.find_filename_content_pairs(**criteria)]
        if len(contents) > 1 and not ignore_extra_matches:
            asked = " ".join(str(criterion) for criterion in criteria.values() if criterion) or "anything"
            raise SeveralPartsError(f"the mail has {len(contents)} parts for {asked}; nothing was published")
        return contents[0] if contents else None


def _readable(read: Callable[[], Any], otherwise: Any = None) -> Any:
    """What `read` reads of a mail's headers; on some broken ones Python's own code raises anything."""
    try:
        return read()
    except Exception as exc:
        LOGGER.warning("a header of the mail cannot be read (%s: %s)", type(exc).__name__, exc)
        return otherwise


def _parts(*path: Any) -> Iterator[tuple[Any, ...]]:
    """Each part that is not made of others, behind it those that it is a part of."""
    message = path[0]
    if not message.is_multipart():
        yield path
        return
    inner = message.get_payload()
    if str(message.get("Content-Transfer-Encoding", "")).strip().lower() == "base64":
        with suppress(ValueError, TypeError, SourceError):  # the standard has it, and Python does not
            inner = [ParsedMail.from_bytes(base64.b64decode(inner[0].get_payload()))]
    for part in inner:
        yield from _parts(part, *path)


def _is_of(kind: str, wanted: str) -> bool:
    main, _, sub = wanted.lower().partition("/")
    return fnmatch(kind, f"{main or '*'}/{sub or '*'}")


def _matches(patterns: Regex | Iterable[Regex] | None, value: Any, flags: int) -> bool:
    if patterns is None:
        return True
    several = [patterns] if isinstance(patterns, str | bytes | re.Pattern) else patterns
    regexes: Any = (re.compile(one, 0 if isinstance(one, re.Pattern) else flags) for one in several)
    return any(type(value) is type(regex.pattern) and regex.search(value) for regex in regexes)


class BaseSimpleEmailCollector(BaseSimpleCollector):
    """Publishes one message made from the mail on standard input.

    To be written: `obtain_data_body`, which looks at `email_msg`. Nothing is remembered: a mail comes once.
    One that comes again after a failed run gives the same message ids. What fails before the message is
    committed ends with exit code 75, so that the mail server keeps the mail; a mail that is not what it
    should be (`SourceError`) ends with 66.

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
        return ParsedMail.from_bytes(self.raw_email_msg)

    def open_journal(self) -> Journal:
        """As in the base class."""
        with self._mail_kept():
            return super().open_journal()

    def run_collection(self) -> None:
        """As in the base class; that the message is not delivered yet is a warning."""
        with self._mail_kept():
            super().run_collection()

    def run(self) -> None:
        """Publish the mail's message."""
        about = self.email_msg.id.encode("utf-8", "surrogateescape") or self.raw_email_msg
        self.base_id = blake2b(about, digest_size=16).hexdigest()
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
