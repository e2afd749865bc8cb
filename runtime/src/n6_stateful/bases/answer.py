"""What a download gives: a whole answer, or an error."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from n6_stateful.errors import SourceError

LOGGER = logging.getLogger(__name__)


class Answer(NamedTuple):
    """A whole answer. It also has what requests' response has: `status_code`, `url`, `reason`...

    Attributes:
        content: the body without its compression.
        headers: of the answer, by case-insensitive names.
        validators: what the server calls this version of the body. Give them to the next `download` once the
            body is published: they are plain data for a state.
        is_known_whole: whether the answer said where it ends. If not, the connection was closed at a place
            that looks like the end, and may have been cut.
        where: the URL, as it may be shown.
        response: the same as requests has it, without its content.
    """

    content: bytes
    headers: Mapping[str, str]
    validators: dict[str, str]
    is_known_whole: bool
    where: str
    response: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.response, name)

    @property
    def text(self) -> str:
        """The body in the character set that the answer names; else that of its byte order mark; else UTF-8.
        What is not in it is replaced, with a warning; `content` has it all."""
        about = Message()
        about["Content-Type"] = self.headers.get("Content-Type", "")
        charset = about.get_content_charset("") or json.detect_encoding(self.content)
        return decoded(self.content, charset, f"{self.where}: `content` has")

    def json(self) -> Any:
        """The body, which is JSON: dicts, lists, texts, numbers.

        Raises:
            SourceError: it is not JSON.
        """
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError) as exc:
            problem = f"answered with something else than JSON, beginning {self.content[:60]!r}"
            raise SourceError(f"{self.where}: {problem}") from exc


class DownloadError(SourceError):
    """There is no whole answer. It is also the exception that requests has for it: `requests.HTTPError` with
    `response`, `requests.ConnectionError`, `requests.Timeout`...

    Attributes:
        status: what the server answered; 0 if it is not the status that is wrong.
        may_pass: whether another attempt may do better.
        wait: after how many seconds, if the source named a time.
    """

    status = 0
    may_pass = False
    wait: float | None = None


def as_datetime(header: str | None) -> datetime | None:
    """The time in a header of HTTP or of a mail: UTC without a timezone; None if there is none."""
    try:
        moment = parsedate_to_datetime((header or "").strip())
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def decoded(data: bytes, charset: str, bytes_in: str) -> str:
    """`data` as text, without a BOM at its beginning. What cannot be read is replaced, with a warning;
    `bytes_in` is where it finds the bytes."""
    try:
        return data.decode(charset).removeprefix("\ufeff")
    except (LookupError, ValueError):
        LOGGER.warning("text is not in %r, so that some of it is replaced; %s its bytes", charset, bytes_in)
    try:
        return data.decode(charset, "replace").removeprefix("\ufeff")
    except (LookupError, ValueError):  # there is no such character set, or it replaces nothing
        return data.decode("utf-8", "replace").removeprefix("\ufeff")
