"""One download, done once: `download` gives a whole answer, or None if there is nothing new, or an error.

Half an answer that is taken for a whole one loses data for good: half of the feed is published, and what
the server calls the whole of it is remembered. So only status 200 (or 204, which is empty) counts as an
answer, with a body that has reached its end, as far as HTTP can tell, within a size and a time.

Needs requests and stamina: the extra `[http]`.
"""

from __future__ import annotations

import io
import logging
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

import requests
import stamina
from requests.structures import CaseInsensitiveDict
from urllib3 import exceptions

from n6_stateful.bases.answer import Answer, DownloadError, as_datetime
from n6_stateful.errors import ConfigError
from n6_stateful.masking import masked

LOGGER = logging.getLogger(__name__)

Timeout = float | tuple[float, float]
IsExpected = Callable[[str, bytes], bool]

_CHUNK = 1 << 16
_CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
# A proxy's login is set anew for each host, from the environment.
_FOR_ANY_HOST = {"accept", "accept-encoding", "connection", "user-agent", "proxy-authorization"}
_FOR_ANY_HOST |= {name.lower() for name in _CONDITIONS.values()}
_COMPRESSIONS = ("gzip", "x-gzip", "deflate")
_OTHER_COMPRESSIONS = ("br", "zstd", "compress", "x-compress", "dcb", "dcz", "bzip2", "x-bzip2", "xz", "lzma")
# Data for another host, and a circle: another attempt gives the same.
_FINAL = (requests.RequestException, requests.TooManyRedirects)


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
        ConfigError: `url` is not an http or https URL.
    """
    if _parts(url) is None:
        raise ConfigError(
            "a url to download must begin with http:// or https:// and name a host (not shown: it may hold a "
            "secret)"
        )
    known, limits = validators or {}, (deadline, time.monotonic() + deadline, size_limit)
    kwargs["timeout"] = timeout
    fetching = _Fetching(url, method, headers or {}, known, *limits, allow_empty, is_expected, show, kwargs)
    return fetching.run(retries)


class Session(requests.Session):
    """Keeps what is meant for one host from another, and reads no body of a redirect."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where it redirects to; None if it does not."""
        target = super().get_redirect_target(resp)
        if target:
            resp.raw.close()  # requests would read the body, however long it is
        return target

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Drop all headers of the caller's where another host is asked, not only `Authorization`."""
        url = prepared_request.url or ""
        if not self.should_strip_auth(response.request.url, url):  # type: ignore[no-untyped-call]
            return  # requests would look into .netrc, whatever the caller gave
        if prepared_request.body is not None:
            raise requests.RequestException(
                f"redirects to {_shown(url)}, which the request's data is not for", response=response
            )
        for name in [name for name in prepared_request.headers if name.lower() not in _FOR_ANY_HOST]:
            del prepared_request.headers[name]
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]


class _Fetching(NamedTuple):
    """One download; the attributes are the arguments of `download`, `kwargs` the further ones."""

    url: str
    method: str
    headers: Mapping[str, str]
    validators: Mapping[str, str]
    deadline: float
    end: float  # of the deadline, by time.monotonic()
    size_limit: int
    allow_empty: bool
    is_expected: IsExpected | None
    show: Callable[[str], None]
    kwargs: dict[str, Any]

    def run(self, retries: int) -> Answer | None:
        """The answer, after as many attempts as it takes; None if there is nothing new.

        Raises:
            DownloadError: there is none.
        """
        # The one would log whole URLs, with the keys in them, the other not what was wrong.
        logging.getLogger("urllib3").setLevel(logging.INFO)
        logging.getLogger("stamina").setLevel(logging.ERROR)
        problems: list[Exception] = []

        def pause(exc: Exception) -> bool | float:
            problems.append(exc)
            if not isinstance(exc, DownloadError) or not exc.may_pass:
                return False
            return exc.wait is None or (exc.wait < self.end - time.monotonic() and exc.wait)

        for attempt in stamina.retry_context(
            on=pause, attempts=retries + 1, timeout=self.deadline, wait_initial=1, wait_max=30
        ):
            if problems:
                LOGGER.warning("%s; attempt %d of %d follows", problems[-1], attempt.num, retries + 1)
            with attempt, Session() as session:
                return self._attempt(session)
        raise AssertionError("stamina ends with an answer or an error")

    def _attempt(self, session: Session) -> Answer | None:
        headers = CaseInsensitiveDict(self.headers)
        headers.update(self._conditions(), **{"Accept-Encoding": "gzip"})
        auth: Any = self.kwargs.get("auth") or requests.utils.get_auth_from_url(self.url)
        if auth == ("", ""):  # otherwise .netrc would replace what a header says
            auth = (lambda request: request) if "Authorization" in headers else None
        kwargs = self.kwargs | {"headers": headers, "auth": auth, "stream": True}
        try:
            with session.request(self.method, self.url, **kwargs) as response:
                return self._taken(response)
        except DownloadError:
            raise
        except (exceptions.HTTPError, HTTPException, OSError, EOFError, ValueError, zlib.error) as exc:
            raise self._failed(exc) from None

    def _conditions(self) -> dict[str, str]:
        known = self.validators if self.validators.get("url") == _digest(self.url) else {}
        return {_CONDITIONS[name]: known[name] for name in _CONDITIONS if name in known}

    def _taken(self, response: requests.Response) -> Answer | None:
        """The answer in `response`; None if there is nothing new."""
        status, headers = response.status_code, response.headers
        if (status == 304 and self._conditions()) or (status == 204 and not self.allow_empty):
            return None
        if status not in (200, 204):
            wait = _seconds(headers.get("Retry-After", "")) if status in (429, 503) else None
            raise self._error(
                f"answered {status} {response.reason or ''}".rstrip()
                + (f", and asks to wait {wait:.0f} s" if wait else ""),
                requests.HTTPError,
                status=status,
                may_pass=status >= 500 or status in (408, 425, 429),
                wait=wait,
                response=response,
            )
        is_head = self.method.upper() == "HEAD"
        content, is_whole = (b"", False) if is_head else self._body(response)
        if not content and not self.allow_empty and not is_head:
            raise self._error("answered with an empty body")
        content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content and self.is_expected and not self.is_expected(content_type, content[:1024]):
            raise self._error(
                f"answered with something else than expected ({content_type or 'no content type'}), "
                f"beginning {content[:60]!r}"
            )
        validators = _validators(headers) if is_whole else {}  # half an answer has to be sent again
        if validators:
            validators["url"] = _digest(self.url)
        about = (_shown(self.url), status, response.reason or "", response.url)
        return Answer(content, headers, validators, is_whole, *about)

    def _body(self, response: requests.Response) -> tuple[bytes, bool]:
        """The body without its compression, and whether it would have been noticed if it had been cut.

        Raises:
            DownloadError: it is larger than `size_limit`, or takes longer than `deadline`.
            EOFError: it ends before its length, or its compression, does.
            zlib.error: it is not compressed as it says.
        """
        headers = response.headers
        is_chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        length = "" if is_chunked else headers.get("Content-Length", "").strip()
        compression = self._compression(headers.get("Content-Encoding", ""))
        pieces = self._pieces(response.raw, length)
        body = io.BytesIO()  # it grows in place, and gives its contents away without copying them
        for piece in _decompressed(pieces) if compression else pieces:
            body.write(piece)
            self.show(f"{body.tell() >> 20:,} MiB")
            if body.tell() > self.size_limit:
                raise self._error(f"the body is larger than {self.size_limit:,} bytes; it was given up")
        return body.getvalue(), bool(is_chunked or length or compression)

    def _pieces(self, raw: Any, length: str) -> Iterator[bytes]:
        """The body as it was sent, in pieces as they arrive."""
        received = 0
        while piece := raw.read1(_CHUNK, decode_content=False):
            received += len(piece)
            yield piece
            if time.monotonic() > self.end:
                raise self._error(
                    f"no whole answer within {self.deadline:g} s; it was given up", requests.Timeout
                )
        if length.isdecimal() and received < int(length):
            raise EOFError(f"the body ended after {received:,} of {length} bytes")

    def _compression(self, header: str) -> str:
        names = [name.strip() for name in header.lower().split(",") if name.strip() not in ("", "identity")]
        compressions = [name for name in names if name in (*_COMPRESSIONS, *_OTHER_COMPRESSIONS)]
        if names != compressions:
            LOGGER.warning("%s: Content-Encoding: %s: read as if it were not there", _shown(self.url), header)
        if len(compressions) > 1 or {*compressions} & {*_OTHER_COMPRESSIONS}:
            raise zlib.error(f"it is encoded as {header}, and only gzip was asked for")
        return "".join(compressions)

    def _failed(self, exc: Exception) -> DownloadError:
        """The error for what requests or one of the libraries below it raised."""
        if isinstance(exc, requests.exceptions.InvalidSchema):
            return self._error("redirects to what is neither an http nor an https URL", type(exc))
        if isinstance(exc, ValueError):  # whatever is said of a URL or a header that is wrong quotes it
            return self._error(f"cannot be asked for: {type(exc).__name__}", _kind(exc))
        is_final = isinstance(exc, requests.exceptions.SSLError) or type(exc) in _FINAL
        text = f"the body is damaged: {exc}" if isinstance(exc, zlib.error) else _root(exc)
        return self._error(text, _kind(exc), may_pass=not is_final)

    def _error(
        self, text: str, kind: type[requests.RequestException] = requests.RequestException, **kwargs: Any
    ) -> DownloadError:
        parts, params = urlsplit(self.url), self.kwargs.get("params")
        values = params.values() if isinstance(params, dict) else ()
        for secret in (parts.query, parts.netloc.rpartition("@")[0], *map(str, values)):
            text = text.replace(secret, "...") if len(secret) > 3 else text  # else it would spoil words
        text = f"{_shown(self.url)}: {text if text.isprintable() else ascii(text)}"[:500]
        # Also an exception of requests, for whoever catches those.
        error: Any = type(kind.__name__, (DownloadError, kind), {"__module__": kind.__module__})
        return error(text, **{"may_pass": False} | kwargs)  # type: ignore[no-any-return]


def _kind(exc: Exception) -> type[requests.RequestException]:
    if isinstance(exc, requests.RequestException):
        return type(exc)
    is_late = isinstance(exc, exceptions.TimeoutError | TimeoutError)
    return requests.Timeout if is_late else requests.ConnectionError


def _decompressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """`pieces` without their compression (gzip, or zlib), in pieces of a bounded size."""
    inflator = zlib.decompressobj(47)
    received = False
    for piece in pieces:
        received = True
        data = piece
        while data:
            if inflator.eof:  # one gzip member may follow another
                inflator = zlib.decompressobj(31)
            yield inflator.decompress(data, _CHUNK)
            data = inflator.unconsumed_tail or inflator.unused_data
    yield inflator.flush()
    if received and not inflator.eof:
        raise EOFError("the compressed body ended before its end")


def _validators(headers: Mapping[str, str]) -> dict[str, str]:
    validators = {name: headers[name] for name in _CONDITIONS if name in headers}
    changed, sent = as_datetime(headers.get("Last-Modified")), as_datetime(headers.get("Date"))
    if changed and sent and changed >= sent:
        # It may have changed again in that second (https://www.rfc-editor.org/rfc/rfc9110#8.8.2.2).
        validators.pop("Last-Modified", None)
    return validators


def _seconds(retry_after: str) -> float | None:
    if retry_after.isdecimal():
        return float(retry_after)
    when = as_datetime(retry_after)
    return max(0.0, (when - datetime.now(UTC).replace(tzinfo=None)).total_seconds()) if when else None


def _root(exc: BaseException) -> str:
    while inner := exc.__cause__ or exc.__context__:
        exc = inner
    return str(exc) or type(exc).__name__


def _digest(url: str) -> str:
    return blake2b(url.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _shown(url: str) -> str:
    """`url` as it may be shown: without its user, and with the secrets hidden."""
    if (parts := _parts(url)) is None:
        return "the url"
    host = parts.netloc.rpartition("@")[2]
    return masked("url", parts._replace(netloc=host, fragment="").geturl())


def _parts(url: str) -> SplitResult | None:
    """The parts of an http or https URL; None for anything else."""
    try:
        parts = urlsplit(url)
        return parts if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 else None
    except ValueError:
        return None
