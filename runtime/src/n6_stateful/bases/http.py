"""One download, done once: `download` gives a whole answer, or None if nothing changed, or an error.

Half an answer that is taken for a whole one loses data for good: half of the feed is published, and what
the server calls the whole of it is remembered. So nothing counts as an answer here but status 200 with a body
that has reached its end, as far as HTTP can tell, within a size and a time.

Needs requests and stamina: the extra `[http]`.
"""

from __future__ import annotations

import io
import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from n6_stateful.bases.text import decoded
from n6_stateful.errors import ConfigError, SourceError
from n6_stateful.extras import needs_extra
from n6_stateful.masking import masked

if TYPE_CHECKING:
    import requests

LOGGER = logging.getLogger(__name__)

Timeout = float | tuple[float, float]
IsExpected = Callable[[str, bytes], bool]

REDIRECTS = 10
_CHUNK = 1 << 16
_CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
_FOR_ANY_HOST = {"Accept", "Accept-Encoding", "User-Agent", *_CONDITIONS.values()}
_URL_OF_VALIDATORS = "url"
_PLAIN = ("", "identity")


class Answer(NamedTuple):
    """A whole answer with status 200.

    Attributes:
        content: the body without its content encoding.
        headers: of the answer, by case-insensitive names.
        validators: what the server calls this version of the body. Give them to the next `download` once the
            body is taken: they are plain data for a state.
        is_known_whole: whether the answer said where it ends. If not, the connection was closed at a place
            that looks like the end, and may have been cut.
        where: the URL, as it may be shown.
    """

    content: bytes
    headers: Mapping[str, str]
    validators: dict[str, str]
    is_known_whole: bool
    where: str

    def json(self) -> Any:
        """What the body, which is JSON, says: dicts, lists, texts, numbers.

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

    @property
    def text(self) -> str:
        """The body in the character set that the answer names, by default UTF-8. What is not in it is
        replaced, with a warning; `content` has it all."""
        message = Message()
        message["Content-Type"] = self.headers.get("Content-Type", "")
        return decoded(self.content, message.get_content_charset("utf-8"), f"{self.where}: `content` has")


def as_datetime(header: str | None) -> datetime | None:
    """The time in a header as HTTP writes it, UTC without a timezone; None if there is none."""
    try:
        return parsedate_to_datetime(header or "").astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def download(
    url: str,
    *,
    validators: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    data: Any = None,
    retries: int = 3,
    timeout: Timeout = (12.1, 25),
    deadline: float = 600,
    size_limit: int = 1 << 30,
    allow_empty: bool = False,
    is_expected: IsExpected | None = None,
) -> Answer | None:
    """Download `url`, once and whole.

    Tried again, with growing pauses: what may pass (no connection, an answer that breaks off, 408, 425, 429
    and 5xx), after the time that `Retry-After` names if that is within the deadline. Redirects are followed
    to http and https; to another host go no headers of yours but the harmless ones. `.netrc` counts where
    neither a header nor the URL says who is asking.

    Args:
        url: http or https; a user and a password in it are used.
        validators: those of the last answer that was taken; they count for the same `url` only.
        headers: to send.
        method: the HTTP method.
        data: the request's body, as requests takes it.
        retries: how many further attempts there may be.
        timeout: seconds to connect, and between two parts of an answer; one number for both.
        deadline: seconds for everything together.
        size_limit: bytes of the decoded body.
        allow_empty: whether an empty body is an answer.
        is_expected: given the content type (lowercase, without parameters) and the first bytes of the body,
            whether it is what was asked for.

    Returns:
        The answer; None if the server says that nothing changed since `validators`.

    Raises:
        DownloadError: there is no whole answer. Neither the query nor the user of the URL is in its text.
        ConfigError: requests or stamina is not installed, or `url` is no http or https URL.
    """
    if (parts := _parts(url)) is None:
        raise ConfigError(
            "a url to download must begin with http:// or https:// and name a host (not shown: it may hold a "
            "secret)"
        )
    try:
        import stamina
        from requests.structures import CaseInsensitiveDict
    except ImportError as exc:
        raise needs_extra("a download", "http", exc) from exc
    # The one would log whole URLs, with the keys in them, the other not what was wrong.
    logging.getLogger("urllib3").setLevel(logging.INFO)
    logging.getLogger("stamina").setLevel(logging.ERROR)
    end = time.monotonic() + deadline
    sent = CaseInsensitiveDict({name.title(): value for name, value in (headers or {}).items()})
    sent["Accept-Encoding"] = "gzip, deflate"
    known = validators or {}
    if known.get(_URL_OF_VALIDATORS) == _digest(url):
        sent.update({_CONDITIONS[name]: value for name, value in known.items() if name in _CONDITIONS})
    attempt = _Attempt(url, parts, method, sent, data, timeout, size_limit, allow_empty, is_expected)

    problems: list[Exception] = []

    def pause(exc: Exception) -> bool | float:
        problems.append(exc)
        if not isinstance(exc, DownloadError) or not exc.may_pass:
            return False
        return exc.wait is None or (exc.wait < end - time.monotonic() and exc.wait)

    def attempts() -> Answer | None:
        for each in stamina.retry_context(
            on=pause, attempts=retries + 1, timeout=deadline, wait_initial=1, wait_max=30
        ):
            if problems:
                LOGGER.warning("%s; attempt %d of %d follows", problems[-1], each.num, retries + 1)
            with each:
                return attempt.make()
        raise AssertionError("stamina ends with an answer or an error")

    return _within(
        deadline, attempts, f"{shown(url)}: no whole answer within {deadline:g} s; it was given up"
    )


def shown(url: str) -> str:
    """`url` as it may be shown: without its user, and with the secrets hidden."""
    if (parts := _parts(url)) is None:
        return "the url"
    host = parts.netloc.rpartition("@")[2]
    return masked("url", parts._replace(netloc=host, fragment="").geturl())


class DownloadError(SourceError):
    """There is no whole answer.

    Attributes:
        status: what the server answered; 0 if it is not the status that is wrong.
        may_pass: whether another attempt may do better.
        wait: after how many seconds, if the source named a time.
    """

    def __init__(self, text: str, status: int = 0, *, may_pass: bool, wait: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.may_pass = may_pass
        self.wait = wait


class _Attempt(NamedTuple):
    """One attempt; the attributes are the arguments of `download`, and the parts of the URL."""

    url: str
    parts: SplitResult
    method: str
    headers: Any
    data: Any
    timeout: Timeout
    size_limit: int
    allow_empty: bool
    is_expected: IsExpected | None

    def make(self) -> Answer | None:
        """The answer; None if nothing changed.

        Raises:
            DownloadError: there is none.
        """
        import requests
        from urllib3.exceptions import HTTPError

        try:
            with requests.Session() as session, self._respond(session) as response:
                return self._take(response)
        except ValueError as exc:  # whatever is said of a URL or a header that is wrong quotes it
            raise self._error(f"cannot be asked for: {type(exc).__name__}") from None
        except (EOFError, HTTPError, HTTPException, OSError, zlib.error) as exc:  # with all of requests' own
            may_pass = not isinstance(exc, requests.exceptions.SSLError)
            why = f"the body is damaged: {exc}" if isinstance(exc, zlib.error) else _root(exc)
            raise self._error(why, may_pass=may_pass) from None

    def _error(
        self, what: str, status: int = 0, *, may_pass: bool = False, wait: float | None = None
    ) -> DownloadError:
        for secret in (self.parts.query, self.parts.netloc.rpartition("@")[0]):
            what = what.replace(secret, "...") if len(secret) > 3 else what  # else it would spoil words
        text = f"{shown(self.url)}: {what if what.isprintable() else ascii(what)}"[:500]
        return DownloadError(text, status, may_pass=may_pass, wait=wait)

    def _respond(self, session: requests.Session) -> requests.Response:
        """The response to the request, redirects followed; its body is not read yet."""
        import requests

        parts = self.parts
        method, headers, data = self.method, self.headers.copy(), self.data
        login: Any = None
        for _ in range(REDIRECTS + 1):
            given: Any = requests.utils.get_auth_from_url(parts.geturl())
            login = given if any(given) else login
            # An authentication that changes nothing, or else `.netrc` would replace the header that is there.
            auth = (lambda it: it) if "Authorization" in headers else login
            request = requests.Request(method, parts.geturl(), headers, data=data, auth=auth)
            prepared = session.prepare_request(request)
            url = prepared.url or ""
            settings: Any = session.merge_environment_settings(url, {}, True, None, None)
            # Not session.send, which reads the body of a redirect, however long it is.
            response = session.get_adapter(url).send(prepared, timeout=self.timeout, **settings)
            cookies: Any = requests.cookies
            cookies.extract_cookies_to_jar(session.cookies, prepared, response.raw)
            target = _location(session, response)
            if not target:
                return response
            response.close()
            redirected = _parts(target, parts.geturl())
            if redirected is None:
                raise self._error("redirects to what is neither an http nor an https URL")
            before, parts = parts, redirected
            if method != "GET" and response.status_code < 307:
                method, data = "GET", None
            if not _may_know_the_same(before, parts):
                login = None
                for name in set(headers) - _FOR_ANY_HOST:
                    del headers[name]
                if data is not None:
                    raise self._error(
                        f"redirects to {shown(parts.geturl())}, which the request's data is not for"
                    )
        raise self._error(f"redirects more than {REDIRECTS} times, at last to {shown(parts.geturl())}")

    def _take(self, response: requests.Response) -> Answer | None:
        """The answer in `response`; None if nothing changed."""
        status, headers = response.status_code, response.headers
        if status == 304 and any(name in self.headers for name in _CONDITIONS.values()):
            return None
        if status != 200:
            wait = _seconds(headers.get("Retry-After", "")) if status in (429, 503) else None
            raise self._error(
                f"answered {status} {response.reason or ''}".rstrip()
                + (f", and asks to wait {wait:.0f} s" if wait else ""),
                status,
                may_pass=status >= 500 or status in (408, 425, 429),
                wait=wait,
            )
        chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        length = headers.get("Content-Length", "").strip()
        coding = headers.get("Content-Encoding", "").strip().lower()
        body = io.BytesIO()  # it grows in place, and gives its contents away without copying them
        for piece in _decoded(_pieces(response, "" if chunked else length), coding):
            body.write(piece)
            if body.tell() > self.size_limit:
                raise self._error(f"the body is larger than {self.size_limit:,} bytes; it was given up")
        content = body.getvalue()
        content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if not content and not self.allow_empty:
            raise self._error("answered with an empty body")
        if self.is_expected is not None and not self.is_expected(content_type, content[:1024]):
            raise self._error(
                f"answered with something else than expected ({content_type or 'no content type'}), "
                f"beginning {content[:60]!r}"
            )
        is_whole = bool(chunked or length or coding not in _PLAIN)
        # Of what may have been cut off no more is known than of nothing: it has to be sent again.
        validators = {name: headers[name] for name in _CONDITIONS if is_whole and name in headers}
        changed, sent = as_datetime(headers.get("Last-Modified")), as_datetime(headers.get("Date"))
        if changed and sent and changed >= sent:
            # It may have changed again in that second (https://www.rfc-editor.org/rfc/rfc9110#8.8.2.2).
            validators.pop("Last-Modified", None)
        if validators:
            validators[_URL_OF_VALIDATORS] = _digest(self.url)
        return Answer(content, headers, validators, is_whole, shown(self.url))


def _location(session: requests.Session, response: requests.Response) -> str | None:
    try:
        return session.get_redirect_target(response)
    except UnicodeDecodeError:
        return response.headers["Location"]


def _pieces(response: requests.Response, length: str) -> Iterator[bytes]:
    """The body as it was sent, in pieces; `EOFError` if they are less than `length`, if that is a number."""
    received = 0
    while piece := response.raw.read(_CHUNK, decode_content=False):
        received += len(piece)
        yield piece
    if length.isdecimal() and received < int(length):
        raise EOFError(f"the body ended after {received:,} of {length} bytes")


def _decoded(pieces: Iterable[bytes], coding: str) -> Iterator[bytes]:
    """`pieces` without their content encoding, in pieces of a bounded size.

    Raises:
        EOFError: they end before the encoding does.
        zlib.error: they are not in that encoding.
    """
    if coding in _PLAIN:
        yield from pieces
        return
    is_gzip = coding in ("gzip", "x-gzip")
    if not is_gzip and coding != "deflate":
        raise zlib.error(f"it is encoded as {coding}, and only gzip and deflate were asked for")
    inflator: Any = None
    begun = False
    for piece in pieces:
        data = piece
        while data:
            if inflator is None:
                data = data.lstrip(b"\0") if begun and is_gzip else data  # padding, as gzip(1) takes it
                if not data:
                    break
                if begun and not is_gzip:
                    raise zlib.error("something follows its end")
                # What is called deflate is zlib's format, or what some servers take it for: without a header.
                is_zlib = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
                inflator = zlib.decompressobj(31 if is_gzip else 15 if is_zlib else -15)
                begun = True
            yield (out := inflator.decompress(data, _CHUNK))
            while len(out) == _CHUNK and not inflator.eof:
                yield (out := inflator.decompress(inflator.unconsumed_tail, _CHUNK))
            data = inflator.unused_data
            if inflator.eof:
                inflator = None
    if inflator is not None or not begun:
        raise EOFError(f"the {coding} body ended before its end")


def _within(seconds: float, function: Callable[[], Answer | None], otherwise: str) -> Answer | None:
    """What `function` returns or raises; `SourceError(otherwise)` if it takes longer than `seconds`.

    It runs in a thread of its own, since no library bounds the time of a name's look-up, or of a server that
    sends a byte now and then. After its time the thread is left to itself: it keeps no process alive.
    """
    outcome: Future[Answer | None] = Future()

    def work() -> None:
        try:
            outcome.set_result(function())
        except BaseException as exc:
            outcome.set_exception(exc)

    threading.Thread(target=work, name="download", daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        raise DownloadError(otherwise, may_pass=False) from None


def _may_know_the_same(one: SplitResult, two: SplitResult) -> bool:
    """Whether `two` is the same origin as `one`, or its https."""
    if one.scheme == two.scheme:
        return one.hostname == two.hostname and one.port == two.port
    return two.scheme == "https" and one.hostname == two.hostname and one.port == two.port is None


def _seconds(retry_after: str) -> float | None:
    if retry_after.isdecimal():
        return float(retry_after)
    when = as_datetime(retry_after)
    return max(0.0, (when - datetime.now(UTC).replace(tzinfo=None)).total_seconds()) if when else None


def _parts(url: str, base: str = "") -> SplitResult | None:
    """The parts of an http or https URL, which may be relative to `base`; None for anything else."""
    try:
        parts = urlsplit(urljoin(base, url))
        return parts if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def _root(exc: BaseException) -> str:
    while inner := exc.__cause__ or exc.__context__:
        exc = inner
    return str(exc) or type(exc).__name__


def _digest(url: str) -> str:
    return blake2b(url.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
