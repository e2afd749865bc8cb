"""What a collector that downloads has: options for it, and one download done once."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from n6_stateful.bases.answer import Answer, as_datetime
from n6_stateful.bases.base import BaseCollector
from n6_stateful.errors import NothingNew
from n6_stateful.extras import needs_extra
from n6_stateful.progress import Progress


def to_timeout(text: str) -> float | tuple[float, float]:
    """Seconds, or two of them: to connect, and between two parts of an answer."""
    value = ast.literal_eval(text)
    given = value if isinstance(value, tuple | list) else (value,)
    if len(given) not in (1, 2) or not all(isinstance(part, int | float) and part > 0 for part in given):
        raise ValueError("must be a number above 0, or two of them in parentheses")
    return value if isinstance(value, int | float) else (given[0], given[-1])


class Performer:
    """What `request_performer` gives a `with` block: iterate over it for the body in pieces.

    Attributes:
        response: the whole answer.
    """

    def __init__(self, response: Answer, chunk_size: int) -> None:
        self.response = response
        starts = range(0, len(response.content), chunk_size)
        self._pieces = (response.content[start : start + chunk_size] for start in starts)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def __next__(self) -> bytes:
        return next(self._pieces)

    def get_dt_header(self, name: str) -> datetime | None:
        """The time in a header, UTC without a timezone; None if there is none."""
        return as_datetime(self.response.headers.get(name))


class BaseDownloadingCollector(BaseCollector):
    """Gives a collector `download`; the names are n6's.

    Attributes:
        allow_empty_body: whether an empty body means that there is nothing new; otherwise it is an error.
    """

    extra_config_options = """
        ; how often a download that failed is tried again
        download_retries = 3 :: int
        ; seconds to connect, and between two parts of an answer; or one number for both
        download_timeout = (12.1, 25) :: py
        ; how long a download may take with all its retries
        download_deadline = 10m :: duration
        ; bytes; what is larger is given up
        download_max_size = 1073741824 :: int
        ; a Python dict of headers to send with each request
        base_request_headers = {} :: py_namespaces_dict
    """
    custom_converters: Mapping[str, Callable[[str], Any]] = {"download_timeout": to_timeout}
    allow_empty_body = False
    _http_response: Answer | None = None
    _http_last_modified: datetime | None = None

    def download(self, url: str, **kwargs: Any) -> bytes:
        """The whole body of what is at `url`.

        Args:
            url: http or https.
            kwargs: as `request` takes them; for the errors see there, too.
        """
        return self.request(url, **kwargs).content

    def download_text(self, url: str, **kwargs: Any) -> str:
        """The same as text, in the character set that the answer names, by default UTF-8."""
        return self.request(url, **kwargs).text

    def download_json(self, url: str, **kwargs: Any) -> Any:
        """The same as JSON: dicts, lists, texts, numbers.

        Raises:
            SourceError: there is no whole answer, or it is not JSON.
        """
        return self.request(url, **kwargs).json()

    @contextmanager
    def request_performer(self, url: str, *, chunk_size: int = 1 << 16, **kwargs: Any) -> Iterator[Performer]:
        """For `with` blocks as n6 has them.

        Args:
            url: http or https.
            chunk_size: bytes that each step of an iteration over the performer gives.
            kwargs: as `request` takes them.
        """
        yield Performer(self.request(url, **kwargs), chunk_size)

    def request(
        self,
        url: str,
        *,
        retries: int | None = None,
        timeout: Any = None,
        custom_request_headers: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Answer:
        """The whole answer of `url`.

        Args:
            url: http or https.
            retries: instead of the option `download_retries`.
            timeout: instead of the option `download_timeout`.
            custom_request_headers: besides those of the option `base_request_headers`, and before them.
            kwargs: further ones of `n6_stateful.bases.http.download`: `validators`, `method`, `data`...

        Raises:
            NothingNew: the server says that nothing changed since `validators`, or that there is nothing; or
                the body is empty, and `allow_empty_body` is set.
            DownloadError: there is no whole answer.
            ConfigError: requests or stamina is not installed.
        """
        try:
            from n6_stateful.bases.http import download
        except ImportError as exc:
            raise needs_extra("a download", "http", exc) from exc
        config, progress = self.config, Progress("downloading")
        headers = {name.title(): value for name, value in config["base_request_headers"].items()}
        headers |= {name.title(): value for name, value in (custom_request_headers or {}).items()}
        try:
            answer = download(
                url,
                headers=headers,
                retries=config["download_retries"] if retries is None else retries,
                timeout=config["download_timeout"] if timeout is None else timeout,
                deadline=config["download_deadline"],
                size_limit=config["download_max_size"],
                is_expected=self.is_expected,
                show=progress.show,
                **{"allow_empty": self.allow_empty_body} | kwargs,
            )
        finally:
            progress.end()
        if answer is None:
            raise NothingNew("the server says so")
        if not answer.content and self.allow_empty_body and not {"allow_empty", "method"} & set(kwargs):
            raise NothingNew("the answer is empty")
        self._http_response = answer._replace(content=b"")
        self._http_last_modified = as_datetime(answer.headers.get("Last-Modified"))
        return answer

    @property
    def http_response(self) -> Answer | None:
        """The answer that was downloaded last, without its body; None if there is none."""
        return self._http_response

    @property
    def http_last_modified(self) -> datetime | None:
        """When the source last changed, as it says itself: UTC, without a timezone."""
        return self._http_last_modified

    def is_expected(self, content_type: str, beginning: bytes) -> bool:
        """Whether an answer is what was asked for; by default any is.

        Args:
            content_type: lowercase, without parameters.
            beginning: of the body.
        """
        return True

    def get_output_prop_kwargs(
        self, *, source: str, output_data_body: bytes, **processed_data: Any
    ) -> dict[str, Any]:
        """Adds the header `meta.http_last_modified`."""
        properties = super().get_output_prop_kwargs(
            source=source, output_data_body=output_data_body, **processed_data
        )
        if self.http_last_modified is not None:
            properties["headers"].setdefault("meta", {})["http_last_modified"] = str(self.http_last_modified)
        return properties


def looks_like_html(content_type: str, beginning: bytes) -> bool:
    """Whether an answer is a page of HTML, with which servers report errors or ask for a login. The content
    type alone does not say so: plain files are often sent as `text/html`."""
    start = beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html")) or ("html" in content_type and start[:1] == b"<")
