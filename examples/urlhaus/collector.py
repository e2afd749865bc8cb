"""A finished collector of abuse.ch URLhaus' CSV export: `#` lines, then quoted CSV, newest first.

The ids of the records rise, so the highest one taken is all that has to be remembered. What is new goes out
as one message. The source: https://urlhaus.abuse.ch/api/ (at most one download in five minutes, and with the
`auth-key` that you get there in the URL).
"""

from __future__ import annotations

import csv
import io
import logging
from typing import Any
from urllib.parse import urlsplit

import requests
import stamina
from n6_stateful import (
    BaseCollector,
    CollectorError,
    CollectorWithStateMixin,
    Download,
    NothingNew,
)
from requests.exceptions import ChunkedEncodingError

LOGGER = logging.getLogger(__name__)

COLUMNS = 8  # at least; exports have nine by now
TIMEOUT = (10, 60)  # seconds: to connect, and between two parts of the body
CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


class UrlhausCollector(CollectorWithStateMixin, BaseCollector):
    type = "file"
    content_type = "text/csv"
    config_spec = """
        [urlhaus]
        source :: str
        cache_dir :: path
        url :: str
    """

    def make_default_state(self) -> dict[str, Any]:
        return {}

    def run(self) -> None:
        self.state = self.load_state()
        super().run()  # returns only when everything published has arrived
        self.save_state(self.state)

    def start_publishing(self) -> None:
        output_rk, output_data_body, output_prop_kwargs = self.get_output_components()
        self.publish_output(output_rk, output_data_body, output_prop_kwargs)
        self.inner_stop()

    def get_source_channel(self, **processed_data: Any) -> str:
        return "urlhaus"

    def get_output_data_body(self, **processed_data: Any) -> bytes:
        return self._collect_data()

    def _collect_data(self) -> bytes:
        data = self._download(only_newer_than=self.state.get("last_utc"))
        if data is None:
            raise NothingNew
        self.state["last_utc"] = data.time_utc
        return data

    def _download(self, only_newer_than: Any) -> Download | None:
        """The records with an id above `only_newer_than`, as they are in the feed."""
        response = get(self.config["url"], self.state.get("validators", {}))
        if response is None:
            return None
        self.state["validators"] = {
            name: response.headers[name] for name in CONDITIONS if name in response.headers
        }
        records = parse(response.content)
        last = only_newer_than or 0
        warn_of_gap(records, last)
        new = [number for number in records if number > last]
        return Download(b"".join(records[number] for number in new), time_utc=max(new)) if new else None


def parse(body: bytes) -> dict[int, bytes]:
    """The lines of the records, by id.

    Raises:
        CollectorError: `body` is not the feed, or not all of it.
    """
    if not body.startswith(b"#"):
        raise CollectorError(f"the source sent something else: {body[:60]!r}...; nothing was published")
    if not body.endswith(b"\n"):
        raise CollectorError("the feed ends in the middle of a line; nothing was published")
    records: dict[int, bytes] = {}
    others = []
    for line in io.BytesIO(body):
        if line.startswith(b"#") or not line.strip():
            continue
        number = id_of(line)
        if number is None:
            others.append(line)
        else:
            records.setdefault(number, line)
    if others:
        LOGGER.warning("%d lines are no records, left out; the first: %r", len(others), others[0][:100])
    return records


def id_of(line: bytes) -> int | None:
    """The id of the record in `line`; None if there is none."""
    try:
        (fields,) = csv.reader([line.decode("utf-8", "replace")], strict=True)
    except csv.Error:
        return None
    number = fields[0]
    return int(number) if len(fields) >= COLUMNS and number.isascii() and number.isdigit() else None


def warn_of_gap(records: dict[int, bytes], last: int) -> None:
    """Tell when the feed does not join on to record `last`, the newest one taken before."""
    if last and records and min(records) > last + 1:
        LOGGER.warning(
            "the feed begins at record %d, the last one taken was %d: those in between may be missed; "
            "run more often",
            min(records),
            last,
        )
    elif records and max(records) < last:
        LOGGER.warning(
            "the feed ends at record %d, and %d was taken already; if the source has begun to count anew, "
            "`state reset` does so here",
            max(records),
            last,
        )


def get(url: str, validators: dict[str, str]) -> requests.Response | None:
    """GET `url`; None if it is unchanged since the server sent `validators`.

    Raises:
        CollectorError: there was no whole answer, several times over.
    """
    try:
        response = try_to_get(url, {CONDITIONS[name]: value for name, value in validators.items()})
    except requests.RequestException as exc:
        parts = urlsplit(url)  # what follows the path may be a key: it is not shown
        reason = str(exc).replace(f"?{parts.query}", "?..." if parts.query else "?")
        if isinstance(exc, requests.HTTPError):
            reason = f"{exc.response.status_code} {exc.response.reason}"
        raise CollectorError(
            f"{parts.scheme}://{parts.hostname}{parts.path} could not be downloaded: {reason}; "
            "nothing was published"
        ) from exc
    return None if response.status_code == requests.codes.not_modified else response


def pause(exc: Exception) -> bool | float:
    """Whether `exc` may pass, or after how many seconds the server says it will."""
    if not isinstance(exc, requests.HTTPError):
        return isinstance(exc, (requests.ConnectionError, requests.Timeout, ChunkedEncodingError))
    if exc.response.status_code not in (429, 500, 502, 503, 504):
        return False
    seconds = exc.response.headers.get("Retry-After", "")
    return min(float(seconds), 60.0) if seconds.isdigit() else True


# stamina rather than urllib3's Retry, which does not try again when an answer breaks off half-way.
@stamina.retry(on=pause, attempts=4, timeout=300, wait_initial=1)
def try_to_get(url: str, headers: dict[str, str]) -> requests.Response:
    """One GET, and up to three more if it fails in a way that may pass."""
    response = requests.get(url, headers=headers, timeout=TIMEOUT)
    response.raise_for_status()
    return response


if __name__ == "__main__":
    UrlhausCollector.run_script()
