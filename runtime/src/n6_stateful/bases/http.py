"""One download, done once: `download` gives a whole answer, or None if there is nothing new, or an error.

Half an answer that is taken for a whole one loses data for good: half of the feed is published, and what
the server calls the whole of it is remembered. So only status 200 (or 204, which is empty) counts as an
answer, with a body that has reached its end, as far as HTTP can tell, within a size and a time.

What needs requests and stamina, the extra `[http]`, is in `n6_stateful.bases.fetching`, which the first
download imports.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from n6_stateful.bases.text import decoded
from n6_stateful.errors import ConfigError, SourceError
from n6_stateful.extras import needs_extra
from n6_stateful.masking import masked

Timeout = float | tuple[float, float]
IsExpected = Callable[[str, bytes], bool]


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


def download(
    url: str,
    *,
    validators: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    retries: int = 3,
    timeout: Timeout = (12.1, 25),
    deadline: float = 600,
    size_limit: int = 1 << 30,
    allow_empty: bool = False,
    is_expected: IsExpected | None = None,
    show: Callable[[str], None] = lambda text: None,
    **kwargs: Any,
) -> Answer | None:
    """Download `url`, once and whole.

    Transient errors (no connection, an answer that breaks off, 408, 425, 429 and 5xx) are tried again, with
    growing pauses, or after the time that `Retry-After` names if that is within the deadline. Redirects are
    followed to http and https; another host gets no headers of yours but the harmless ones. `.netrc` counts
    where neither a header nor the URL says who is asking.

    Args:
        url: http or https; a user and a password in it are used.
        validators: those of the last answer that was published; they count for the same `url` only.
        headers: to send.
        method: the HTTP method.
        retries: how many further attempts there may be.
        timeout: seconds to connect, and between two parts of an answer; one number for both.
        deadline: seconds for everything together, looked at between two parts of an answer.
        size_limit: bytes of the body without its compression.
        allow_empty: whether an empty body is an answer.
        is_expected: given the content type (lowercase, without parameters) and the first bytes of the body,
            whether it is what was asked for.
        show: called with how far it has come, for people.
        kwargs: as `requests.Session.request` takes them: `data`, `json`, `params`, `auth`, `cert`, `verify`,
            `cookies`, `allow_redirects`...

    Returns:
        The answer; None if the server says that nothing changed since `validators`, or that it has nothing
        (204).

    Raises:
        DownloadError: there is no whole answer. Neither the query nor the user of the URL is in its text.
        ConfigError: requests or stamina is not installed, or `url` is not an http or https URL.
    """
    if http_parts(url) is None:
        raise ConfigError(
            "a url to download must begin with http:// or https:// and name a host (not shown: it may hold a "
            "secret)"
        )
    try:
        from n6_stateful.bases.fetching import Fetching
    except ImportError as exc:
        raise needs_extra("a download", "http", exc) from exc
    known, limits = validators or {}, (deadline, time.monotonic() + deadline, size_limit)
    kwargs["timeout"] = timeout
    fetching = Fetching(url, method, headers or {}, known, *limits, allow_empty, is_expected, show, kwargs)
    return fetching.run(retries)


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


def shown(url: str) -> str:
    """`url` as it may be shown: without its user, and with the secrets hidden."""
    if (parts := http_parts(url)) is None:
        return "the url"
    host = parts.netloc.rpartition("@")[2]
    return masked("url", parts._replace(netloc=host, fragment="").geturl())


def http_parts(url: str) -> SplitResult | None:
    """The parts of an http or https URL; None for anything else."""
    try:
        parts = urlsplit(url)
        return parts if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 else None
    except ValueError:
        return None
