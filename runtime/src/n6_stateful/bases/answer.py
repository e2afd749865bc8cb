"""What a download gives: a whole answer, or an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from n6_stateful.bases.text import decoded
from n6_stateful.errors import SourceError


class Answer(NamedTuple):
    """A whole answer; the names that requests has for the same thing are requests'.

    Attributes:
        content: the body without its compression.
        headers: of the answer, by case-insensitive names.
        validators: what the server calls this version of the body. Give them to the next `download` once the
            body is published: they are plain data for a state.
        is_known_whole: whether the answer said where it ends. If not, the connection was closed at a place
            that looks like the end, and may have been cut.
        where: the URL, as it may be shown.
        status_code: 200, or 204.
        reason: the text behind it.
        url: the URL that answered, after redirects. It may hold secrets.
    """

    content: bytes
    headers: Mapping[str, str]
    validators: dict[str, str]
    is_known_whole: bool
    where: str
    status_code: int = 200
    reason: str = "OK"
    url: str = ""

    @property
    def ok(self) -> bool:
        """True: whatever else was answered is an error."""
        return True

    @property
    def encoding(self) -> str:
        """The character set that the answer names; else that of its byte order mark; else UTF-8."""
        message = Message()
        message["Content-Type"] = self.headers.get("Content-Type", "")
        return message.get_content_charset("") or json.detect_encoding(self.content)

    @property
    def text(self) -> str:
        """The body in its `encoding`. What is not in it is replaced, with a warning; `content` has it all."""
        return decoded(self.content, self.encoding, f"{self.where}: `content` has")

    def json(self) -> Any:
        """The body, which is JSON: dicts, lists, texts, numbers.

        Raises:
            SourceError: it is not JSON.
        """
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError) as exc:
            raise SourceError(
                f"{self.where}: answered with something else than JSON, beginning {self.content[:60]!r}; "
                "the next run asks again"
            ) from exc


class DownloadError(SourceError):
    """There is no whole answer. It is also the exception that requests has for it: `requests.HTTPError` with
    `response`, `requests.ConnectionError`, `requests.Timeout`...

    Attributes:
        status: what the server answered; 0 if it is not the status that is wrong.
        may_pass: whether another attempt may do better.
        wait: after how many seconds, if the source named a time.
    """

    def __init__(
        self, text: str, status: int = 0, *, may_pass: bool, wait: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(text, **kwargs)
        self.status = status
        self.may_pass = may_pass
        self.wait = wait


def as_datetime(header: str | None) -> datetime | None:
    """The time in a header, as HTTP or ISO 8601 writes it: UTC without a timezone; None if there is none."""
    for convert in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = convert((header or "").strip())
            return (
                (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None)
            )
        except (ValueError, OverflowError):
            pass
    return None
