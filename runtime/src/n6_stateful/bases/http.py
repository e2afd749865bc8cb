"""`download` returns a complete answer, or None if there is nothing new, or raises an error.

Mistaking half an answer for a complete one loses data for good: half of the feed is published, and the
validators of the complete feed are remembered. So an answer must have status 200 (or 204, if empty) and a
body that is complete, as far as HTTP can tell, within limits of size and time.

Needs requests and stamina: the extra `[http]`.
"""

from __future__ import annotations

import io
import logging
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from typing import Any

import requests
import stamina
from urllib3 import exceptions

from n6_stateful.bases.answer import Answer, DownloadError, as_datetime
from n6_stateful.errors import ConfigError
from n6_stateful.masking import masked, masked_url_text

LOGGER = logging.getLogger(__name__)

_CHUNK = 1 << 16
_CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
# A proxy's login is set anew for each host, from the environment.
_FOR_ANY_HOST = {"accept", "accept-encoding", "connection", "user-agent", "proxy-authorization"}
_FOR_ANY_HOST |= {name.lower() for name in _CONDITIONS.values()}
_ASKED_FOR = ("gzip", "x-gzip", "deflate")
_COMPRESSIONS = (*_ASKED_FOR, "br", "zstd", "compress", "x-compress", "dcb", "dcz", "bzip2", "xz", "lzma")
# Retrying does not help: a wrong URL or header, circular redirects.
_FINAL = (ValueError, requests.exceptions.SSLError, requests.TooManyRedirects)


def download(
    url: str,
    *,
    validators: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    retries: int = 3,
    timeout: float | tuple[float, float] = (12.1, 25),
    deadline: float = 600,
    size_limit: int = 1 << 30,
    allow_empty: bool | None = False,
    is_expected: Callable[[str, bytes], bool] = lambda content_type, beginning: True,
    show: Callable[[str], None] = lambda text: None,
    **kwargs: Any,
) -> Answer | None:
    """Download `url` completely.

    Transient errors (no connection, a broken connection, 408, 425, 429 and 5xx) are retried with growing
    pauses, or after `Retry-After` seconds if that is within the deadline. Redirects to http and https are
    followed; another host only gets the harmless ones of your headers. `.netrc` is used if neither a header
    nor the URL has a login.

    Args:
        url: http or https; it may contain a user and a password.
        validators: those of the last answer that was published; ignored if they are of another `url`.
        headers: to send.
        method: the HTTP method.
        retries: how often to retry.
        timeout: seconds to connect, and to wait for more data; one number for both.
        deadline: seconds for the whole download, checked whenever data arrive.
        size_limit: bytes of the decompressed body.
        allow_empty: whether an empty body is an answer; None if it means "nothing new".
        is_expected: called with the content type (lowercase, without parameters) and the first bytes of the
            body; returns whether they look like the expected data.
        show: called with a text that shows the progress.
        kwargs: those of `requests.Session.request`: `data`, `json`, `params`, `auth`, `cert`, `verify`,
            `cookies`, `allow_redirects`...

    Returns:
        The answer; None if the server reports that nothing changed since `validators`, or that it has no
        content (204, unless an empty body is an answer).

    Raises:
        DownloadError: the download failed. Its text has neither the query nor the password of the URL.
        ConfigError: `url` is not an http or https URL.
    """
    if not re.match("https?://[^/]", url):
        raise ConfigError("the URL must begin with http:// or https:// and name a host")
    # urllib3 would log complete URLs, with keys in them; stamina would not log what went wrong.
    logging.getLogger("urllib3").setLevel(logging.INFO)
    logging.getLogger("stamina").setLevel(logging.ERROR)
    digest = blake2b(url.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    known = validators if validators and validators.get("url") == digest else {}
    conditions = {header: known[name] for name, header in _CONDITIONS.items() if name in known}
    sent = requests.structures.CaseInsensitiveDict(headers or {})
    sent.update({**conditions, "Accept-Encoding": "gzip"})
    with _errors(url):
        auth: Any = kwargs.get("auth") or requests.utils.get_auth_from_url(url)
    if auth == ("", ""):  # otherwise .netrc would replace what a header says
        auth = (lambda request: request) if "Authorization" in sent else None
    kwargs |= {"headers": sent, "auth": auth, "timeout": timeout, "stream": True}
    limits = (size_limit, time.monotonic() + deadline, show)
    for attempt in _attempts(retries, deadline):
        with attempt, _errors(url), Session() as session, session.request(method, url, **kwargs) as response:
            if response.status_code == 304 and conditions:
                return None
            return _answer(response, masked("url", url), digest, allow_empty, is_expected, *limits)
    raise AssertionError("stamina ends with an answer or an error")


class Session(requests.Session):
    """Keeps headers meant for one host from another, and does not read the bodies of redirects."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """The URL that the answer redirects to; None if it does not."""
        if resp.is_redirect:
            resp.raw.close()  # requests would read the body, however long it is
        return super().get_redirect_target(resp)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Drop all of the caller's headers for another host, not only `Authorization`."""
        request: Any = prepared_request
        if not self.should_strip_auth(response.request.url, request.url):  # type: ignore[no-untyped-call]
            return  # requests would prefer .netrc to the caller's login
        if request.body is not None:
            raise requests.RequestException(
                "redirected to another host, which must not get the request's data"
            )
        for name in [name for name in request.headers if name.lower() not in _FOR_ANY_HOST]:
            del request.headers[name]
        super().rebuild_auth(request, response)  # type: ignore[no-untyped-call]


def _attempts(retries: int, deadline: float) -> Iterator[stamina.Attempt]:
    """`stamina`'s attempts; each retry is logged, with the reason."""
    end, problems = time.monotonic() + deadline, list[Exception]()

    def pause(exc: Exception) -> bool | float:
        problems.append(exc)
        if not isinstance(exc, DownloadError) or not exc.may_pass:
            return False
        return exc.wait is None or (exc.wait < end - time.monotonic() and exc.wait)

    for attempt in stamina.retry_context(
        on=pause, attempts=retries + 1, timeout=deadline, wait_initial=1, wait_max=30
    ):
        if problems:
            LOGGER.warning("%s; attempt %d of %d follows", problems[-1], attempt.num, retries + 1)
        yield attempt


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Turn any error into a `DownloadError`, which is also an exception of requests."""
    try:
        yield
    except (exceptions.HTTPError, OSError, EOFError, ValueError, zlib.error) as exc:
        kind = type(exc) if isinstance(exc, requests.RequestException) else requests.ConnectionError
        text, response = masked_url_text(_root(exc)), getattr(exc, "response", None)
        if isinstance(exc, ValueError):  # its text would quote the URL or header
            text = f"cannot be requested: {type(exc).__name__}"
        text = f"{masked('url', url)}: {text if text.isprintable() else ascii(text)}"[:500]
        error: Any = type(kind.__name__, (DownloadError, kind), {})(text, response=response)
        error.may_pass = not isinstance(exc, _FINAL) and kind is not requests.RequestException
        if response is not None and kind is requests.HTTPError:
            error.status, after = response.status_code, response.headers.get("Retry-After", "")
            error.may_pass = error.status >= 500 or error.status in (408, 425, 429)
            error.wait = float(after) if after.isdecimal() else None
        raise error from None


def _root(exc: BaseException) -> str:
    while inner := exc.__cause__ or exc.__context__:
        exc = inner
    return str(exc) or type(exc).__name__


def _answer(
    response: Any, where: str, digest: str, allow_empty: Any, is_expected: Any, *limits: Any
) -> Answer | None:
    """The answer in `response`; None if there is nothing new."""
    status, headers = response.status_code, response.headers
    if status not in (200, 204):
        after = f" (Retry-After: {headers['Retry-After']})" if "Retry-After" in headers else ""
        raise requests.HTTPError(f"answered {status} {response.reason or ''}{after}", response=response)
    is_head = response.request.method == "HEAD"
    content, is_whole = _read(response, *limits)
    if not content and not allow_empty and not is_head:
        if status == 204 or allow_empty is None:
            return None
        raise requests.RequestException("answered with an empty body")
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content and not is_expected(content_type, content[:1024]):
        raise requests.RequestException(f"unexpected content ({content_type}): {content[:60]!r}")
    # A cut answer must be downloaded again, so keep no validators for it.
    validators = _validators(headers, digest) if is_whole and not is_head else {}
    return Answer(content, headers, validators, is_whole, where, response)


def _read(
    response: requests.Response, size_limit: int, end: float, show: Callable[[str], None]
) -> tuple[bytes, bool]:
    """The decompressed body, and whether a cut would have been noticed.

    Raises:
        requests.RequestException: it is larger than `size_limit`, or not complete at the time `end`.
        urllib3.exceptions.HTTPError: it is shorter than announced.
        EOFError: its compressed data end too early.
        zlib.error: it is not compressed as announced.
    """
    raw, is_packed = response.raw, _is_packed(response)
    is_whole = bool(raw.chunked or raw.length_remaining is not None or is_packed)
    pieces: Iterator[bytes] = iter(partial(raw.read1, _CHUNK, decode_content=False), b"")
    body = io.BytesIO()  # it grows in place, and its contents can be had without a copy
    for piece in _unpacked(pieces) if is_packed else pieces:
        body.write(piece)
        show(f"{body.tell() >> 20:,} MiB")
        if body.tell() > size_limit:
            raise requests.RequestException(f"the body is larger than {size_limit:,} bytes")
        if time.monotonic() > end:
            raise requests.Timeout("no complete answer within the deadline")
    return body.getvalue(), is_whole


def _is_packed(response: requests.Response) -> bool:
    header = response.headers.get("Content-Encoding", "").lower()
    names = [name for name in re.split(r"[\s,]+", header) if name not in ("", "identity")]
    packed = [name for name in names if name in _COMPRESSIONS]
    if names != packed:
        LOGGER.warning("Content-Encoding: %s: unknown, ignored", header)
    if len(packed) > 1 or not {*packed} <= {*_ASKED_FOR}:
        raise zlib.error(f"it is encoded as {header}, but only gzip was requested")
    return bool(packed)


def _unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """`pieces`, decompressed (gzip or zlib), in pieces of limited size."""
    inflator, data = zlib.decompressobj(47), None
    for data in pieces:
        while data:
            if inflator.eof:  # one gzip member may follow another
                inflator = zlib.decompressobj(31)
            yield inflator.decompress(data, _CHUNK)
            data = inflator.unconsumed_tail or inflator.unused_data
    yield inflator.flush()
    if data is not None and not inflator.eof:
        raise EOFError("the compressed body is cut off")


def _validators(headers: Mapping[str, str], digest: str) -> dict[str, str]:
    validators = {name: headers[name] for name in _CONDITIONS if name in headers}
    changed, sent = as_datetime(headers.get("Last-Modified")), as_datetime(headers.get("Date"))
    if changed and sent and changed >= sent:
        # It may have changed again in that second (https://www.rfc-editor.org/rfc/rfc9110#8.8.2.2).
        del validators["Last-Modified"]
    return validators and {**validators, "url": digest}
