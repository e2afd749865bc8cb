"""`BaseDownloadingCollector`: downloads for a collector, and their options."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from operator import attrgetter
from typing import Any

from n6_stateful.bases.answer import Answer, as_datetime
from n6_stateful.bases.base import BaseCollector, with_meta
from n6_stateful.errors import NothingNew, needs_extra
from n6_stateful.progress import Progress


def to_timeout(text: str) -> tuple[float, float]:
    """Seconds to connect, and between two parts of an answer; one number for both."""
    given = ast.literal_eval(text)
    parts = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(parts) != 2 or not all(isinstance(part, int | float) and part > 0 for part in parts):
        raise ValueError("must be a number above 0, or two of them in parentheses")
    return parts


class Performer:
    """The object that `request_performer` returns; iterate over it to read the body in pieces.

    Attributes:
        response: requests' own response.
    """

    def __init__(self, answer: Answer, chunk_size: int) -> None:
        self.response = answer.response
        self.response._content, self.response._content_consumed = answer.content, True
        self._pieces: Iterator[bytes] = self.response.iter_content(chunk_size)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def get_dt_header(self, name: str) -> datetime | None:
        """The time in a header, UTC without a timezone; None if there is none."""
        return as_datetime(self.response.headers.get(name))


class BaseDownloadingCollector(BaseCollector):
    """Adds `download` to a collector; the names are n6's.

    Attributes:
        allow_empty_body: whether an empty body means "nothing new"; by default it is an error.
        http_response: the last answer, without its body; None if there is none.
        http_last_modified: the time in its `Last-Modified` header: UTC, without a timezone.
    """

    extra_config_options = """
        download_retries = 3 :: int  ; how often to retry a failed download
        download_timeout = (12.1, 25) :: py  ; seconds to connect, and to wait for more data; or one number
        download_deadline = 10m :: duration  ; how long a download may take, including retries
        download_max_size = 1073741824 :: int  ; bytes; a larger body is an error
        base_request_headers = {} :: py_namespaces_dict  ; a Python dict of headers to send with each request
    """
    custom_converters: Mapping[str, Callable[[str], Any]] = {"download_timeout": to_timeout}
    allow_empty_body = False
    http_response: Answer | None = None
    _http_last_modified: datetime | None = None
    http_last_modified = property(attrgetter("_http_last_modified"))

    def download(self, url: str, **kwargs: Any) -> bytes:
        """Download `url` and return the complete body.

        Args:
            url: http or https.
            kwargs: those of `request`, which also lists the errors.
        """
        return self.request(url, **kwargs).content

    def download_text(self, url: str, **kwargs: Any) -> str:
        """The body as text, in the character set that the answer names, by default UTF-8."""
        return self.request(url, **kwargs).text

    def download_json(self, url: str, **kwargs: Any) -> Any:
        """The body, parsed as JSON: dicts, lists, texts, numbers.

        Raises:
            SourceError: the download failed, or the answer is not JSON.
        """
        return self.request(url, **kwargs).json()

    @contextmanager
    def request_performer(self, url: str, *, chunk_size: int = 1 << 16, **kwargs: Any) -> Iterator[Performer]:
        """A context manager like n6's.

        Args:
            url: http or https.
            chunk_size: how many bytes each iteration step returns.
            kwargs: those of `request`.
        """
        yield Performer(self.request(url, **kwargs), chunk_size)

    def request(self, url: str, *, custom_request_headers: Any = None, **kwargs: Any) -> Answer:
        """Download `url` and return the complete answer.

        Args:
            url: http or https.
            custom_request_headers: added to those of the option `base_request_headers`, and win over them.
            kwargs: those of `n6_stateful.bases.http.download`: `retries` and `timeout` instead of the
                options, `validators`, `method`, `data`...

        Raises:
            NothingNew: the server reports that nothing changed since `validators`, or that it has no content;
                or the body is empty and `allow_empty_body` is set.
            DownloadError: the download failed.
            ConfigError: requests or stamina is not installed.
        """
        try:
            from n6_stateful.bases.http import download
        except ImportError as exc:
            raise needs_extra("a download", "http", exc) from exc
        config, progress = self.config, Progress("downloading")
        given = (config["base_request_headers"], custom_request_headers or {})
        options = {name: config[f"download_{name}"] for name in ("retries", "timeout", "deadline")} | {
            "headers": {name.title(): value for headers in given for name, value in headers.items()},
            "size_limit": config["download_max_size"],
            "allow_empty": None if self.allow_empty_body else False,
            "is_expected": self.is_expected,
            "show": progress.show,
        }
        try:
            answer = download(url, **options | kwargs)
        finally:
            progress.end()
        if answer is None:
            raise NothingNew("the source reports nothing new")
        self.http_response = answer._replace(content=b"")
        self._http_last_modified = as_datetime(answer.headers.get("Last-Modified"))
        return answer

    def is_expected(self, content_type: str, beginning: bytes) -> bool:
        """Whether an answer looks like the expected data; by default, always.

        Args:
            content_type: lowercase, without parameters.
            beginning: the first bytes of the body.
        """
        return True

    def get_output_prop_kwargs(self, **processed_data: Any) -> dict[str, Any]:
        """Adds the header `meta.http_last_modified`."""
        properties = super().get_output_prop_kwargs(**processed_data)
        return with_meta(properties, http_last_modified=self.http_last_modified)


def looks_like_html(content_type: str, beginning: bytes) -> bool:
    """Whether an answer is an HTML page, such as an error message or a login form. The content type alone
    is not enough: plain files are often sent as `text/html`."""
    start = beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html")) or ("html" in content_type and start[:1] == b"<")
