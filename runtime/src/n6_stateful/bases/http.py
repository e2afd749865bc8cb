"""One download, done once: `download` gives a whole answer, or None if there is nothing new, or an error.

Half an answer that is taken for a whole one loses data for good: half of the feed is published, and what
the server calls the whole of it is remembered. So only status 200 (or 204, which is empty) counts as an
answer, with a body that has reached its end, as far as HTTP can tell, within a size and a time.

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
# Another attempt gives the same: a wrong URL or header, a circle.
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
    """Download `url`, once and whole.

    Transient errors (no connection, an answer that breaks off, 408, 425, 429 and 5xx) are tried again, with
    growing pauses, or after the seconds that `Retry-After` names if that is within the deadline. Redirects
    are followed to http and https; another host gets no headers of yours but the harmless ones. `.netrc`
    counts where neither a header nor the URL says who is asking.

    Args:
        url: http or https; a user and a password in it are used.
        validators: those of the last answer that was published; they count for the same `url` only.
        headers: to send.
        method: the HTTP method.
        retries: how many further attempts there may be.
        timeout: seconds to connect, and between two parts of an answer; one number for both.
        deadline: seconds for everything together, looked at between two parts of an answer.
        size_limit: bytes of the body without its compression.
        allow_empty: whether an empty body is an answer; None if it means that there is nothing new.
        is_expected: given the content type (lowercase, without parameters) and the first bytes of the body,
            whether it is what was asked for.
        show: called with how far it has come, for people.
        kwargs: as `requests.Session.request` takes them: `data`, `json`, `params`, `auth`, `cert`, `verify`,
            `cookies`, `allow_redirects`...

    Returns:
        The answer; None if the server says that nothing changed since `validators`, or that it has nothing
        (204, unless an empty body is an answer).

    Raises:
        DownloadError: there is no whole answer. Neither the query nor the password of the URL is in its text.
        ConfigError: `url` is not an http or https URL.
    """
    if not re.match("https?://[^/]", url):
        raise ConfigError("a url to download must begin with http:// or https://, and name a host")
    # The one would log whole URLs, with the keys in them, the other not what was wrong.
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
    """Keeps what is meant for one host from another, and reads no body of a redirect."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where it redirects to; None if it does not."""
        if resp.is_redirect:
            resp.raw.close()  # requests would read the body, however long it is
        return super().get_redirect_target(resp)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Drop all headers of the caller's where another host is asked, not only `Authorization`."""
        request: Any = prepared_request
        if not self.should_strip_auth(response.request.url, request.url):  # type: ignore[no-untyped-call]
            return  # requests would look into .netrc, whatever the caller gave
        if request.body is not None:
            raise requests.RequestException("redirects to another host, which the request's data is not for")
        for name in [name for name in request.headers if name.lower() not in _FOR_ANY_HOST]:
            del request.headers[name]
        super().rebuild_auth(request, response)  # type: ignore[no-untyped-call]


def _attempts(retries: int, deadline: float) -> Iterator[stamina.Attempt]:
    """Attempts, as `stamina` makes them; each but the first is logged, with the reason."""
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
    """Raise what goes wrong as a `DownloadError`, which is also an exception of requests."""
    try:
        yield
    except (exceptions.HTTPError, OSError, EOFError, ValueError, zlib.error) as exc:
        kind = type(exc) if isinstance(exc, requests.RequestException) else requests.ConnectionError
        text, response = masked_url_text(_root(exc)), getattr(exc, "response", None)
        if isinstance(exc, ValueError):  # whatever is said of a URL or a header that is wrong quotes it
            text = f"cannot be asked for: {type(exc).__name__}"
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
        raise requests.RequestException(
            f"something else than expected ({content_type}), beginning {content[:60]!r}"
        )
    # Half an answer has to be sent again.
    validators = _validators(headers, digest) if is_whole and not is_head else {}
    return Answer(content, headers, validators, is_whole, where, response)


def _read(
    response: requests.Response, size_limit: int, end: float, show: Callable[[str], None]
) -> tuple[bytes, bool]:
    """The body without its compression, and whether it would have been noticed if it had been cut.

    Raises:
        requests.RequestException: it is larger than `size_limit`, or takes longer than until `end`.
        urllib3.exceptions.HTTPError: it ends before its length does.
        EOFError: it ends before its compression does.
        zlib.error: it is not compressed as it says.
    """
    raw, is_packed = response.raw, _is_packed(response)
    is_whole = bool(raw.chunked or raw.length_remaining is not None or is_packed)
    pieces: Iterator[bytes] = iter(partial(raw.read1, _CHUNK, decode_content=False), b"")
    body = io.BytesIO()  # it grows in place, and gives its contents away without copying them
    for piece in _unpacked(pieces) if is_packed else pieces:
        body.write(piece)
        show(f"{body.tell() >> 20:,} MiB")
        if body.tell() > size_limit:
            raise requests.RequestException(f"the body is larger than {size_limit:,} bytes; it was given up")
        if time.monotonic() > end:
            raise requests.Timeout("no whole answer within the deadline; it was given up")
    return body.getvalue(), is_whole


def _is_packed(response: requests.Response) -> bool:
    header = response.headers.get("Content-Encoding", "").lower()
    names = [name for name in re.split(r"[\s,]+", header) if name not in ("", "identity")]
    packed = [name for name in names if name in _COMPRESSIONS]
    if names != packed:
        LOGGER.warning("Content-Encoding: %s: read as if it were not there", header)
    if len(packed) > 1 or not {*packed} <= {*_ASKED_FOR}:
        raise zlib.error(f"it is encoded as {header}, and only gzip was asked for")
    return bool(packed)


def _unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """`pieces` without their compression (gzip, or zlib), in pieces of a bounded size."""
    inflator, data = zlib.decompressobj(47), None
    for data in pieces:
        while data:
            if inflator.eof:  # one gzip member may follow another
                inflator = zlib.decompressobj(31)
            yield inflator.decompress(data, _CHUNK)
            data = inflator.unconsumed_tail or inflator.unused_data
    yield inflator.flush()
    if data is not None and not inflator.eof:
        raise EOFError("the compressed body ended before its end")


def _validators(headers: Mapping[str, str], digest: str) -> dict[str, str]:
    validators = {name: headers[name] for name in _CONDITIONS if name in headers}
    changed, sent = as_datetime(headers.get("Last-Modified")), as_datetime(headers.get("Date"))
    if changed and sent and changed >= sent:
        # It may have changed again in that second (https://www.rfc-editor.org/rfc/rfc9110#8.8.2.2).
        del validators["Last-Modified"]
    return validators and {**validators, "url": digest}
