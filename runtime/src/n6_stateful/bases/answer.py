"""The result of a download: a complete answer, or an error."""

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
    """A complete answer. It also has the attributes of requests' response: `status_code`, `url`, `reason`...

    Attributes:
        content: the body, decompressed.
        headers: the answer's headers; names are case-insensitive.
        validators: the server's `ETag` and `Last-Modified` for this body. Once the body is published, pass
            them to the next `download`; they are plain data, so a state can hold them.
        is_known_whole: whether the answer announced where it ends. If not, the end of the connection was
            taken as the end of the body, which may have been cut.
        where: the URL, without secrets.
        response: requests' own response, without its content.
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
        """The body as text: in the character set that the answer names, or that of its byte order mark, or
        UTF-8. Undecodable bytes are replaced, with a warning; `content` is untouched."""
        about = Message()
        about["Content-Type"] = self.headers.get("Content-Type", "")
        charset = about.get_content_charset("") or json.detect_encoding(self.content)
        return decoded(self.content, charset, f"{self.where}: `content` has")

    def json(self) -> Any:
        """The body, parsed as JSON: dicts, lists, texts, numbers.

        Raises:
            SourceError: it is not JSON.
        """
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError) as exc:
            problem = f"the answer is not JSON; it begins with {self.content[:60]!r}"
            raise SourceError(f"{self.where}: {problem}") from exc


class DownloadError(SourceError):
    """The download failed. It is also an instance of requests' own exception: `requests.HTTPError` with
    `response`, `requests.ConnectionError`, `requests.Timeout`...

    Attributes:
        status: the server's status code; 0 if the status is not the problem.
        may_pass: whether the error is transient, so that another attempt may succeed.
        wait: seconds to wait before it, if the source named a time.
    """

    status = 0
    may_pass = False
    wait: float | None = None


def as_datetime(header: str | None) -> datetime | None:
    """The time in an HTTP or mail header: UTC without a timezone; None if there is none."""
    try:
        moment = parsedate_to_datetime((header or "").strip())
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def decoded(data: bytes, charset: str, bytes_in: str) -> str:
    """`data` as text, without a leading BOM. Undecodable bytes are replaced, with a warning; `bytes_in`
    is its phrase for where the original bytes are."""
    try:
        return data.decode(charset).removeprefix("\ufeff")
    except (LookupError, ValueError):
        LOGGER.warning("text is not valid %r, so some of it was replaced; %s its bytes", charset, bytes_in)
    try:
        return data.decode(charset, "replace").removeprefix("\ufeff")
    except (LookupError, ValueError):  # there is no such character set, or it replaces nothing
        return data.decode("utf-8", "replace").removeprefix("\ufeff")
