"""A finished collector of dataplane.org's reports: fields between `|`, sorted by AS number.

Nothing in a report tells old from new: many records share a time, and one can come late. So the records
themselves are remembered, for the week that a report covers. Each goes out as a message of its own, and the
state is saved after each batch, so that a run that was killed goes on right there.
"""

from __future__ import annotations

import io
import logging
import re
from datetime import datetime
from typing import Any, NamedTuple

import httpx
import stamina
from n6_stateful import (
    BaseCollector,
    CollectorError,
    CollectorWithStateMixin,
    NothingNew,
)

LOGGER = logging.getLogger(__name__)

BATCH = 500
TIMEOUT = httpx.Timeout(60, connect=10)  # seconds: between two parts of the body, and to connect
CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


class Report(NamedTuple):
    """What a report holds.

    Attributes:
        records: its records, each with the time in it.
        begin: the begin of the time that it covers.
        validators: what the server calls this version of it; empty if it is not known to be whole.
    """

    records: dict[bytes, datetime]
    begin: datetime
    validators: dict[str, str]


class DataplaneCollector(CollectorWithStateMixin, BaseCollector):
    type = "stream"
    config_spec = """
        [dataplane]
        source :: str
        cache_dir :: path
        url :: str
    """

    def make_default_state(self) -> dict[str, Any]:
        return {"seen": {}, "validators": {}}

    def run(self) -> None:
        self.state = self.load_state()
        super().run()  # returns only when everything published has arrived
        self.save_state(self.state)

    def start_publishing(self) -> None:
        report = self._download(self.state["validators"])
        if report is None:
            raise NothingNew
        seen = self.state["seen"]
        new = sorted(report.records.keys() - seen.keys(), key=lambda line: (report.records[line], line))
        for begin in range(0, len(new), BATCH):
            for line in new[begin : begin + BATCH]:
                self.publish_output(*self.get_output_components(line=line))
                seen[line] = report.records[line]
            self.save_state(self.state)  # returns only when these have arrived, too
        # Not before: with the validators saved, a run after a crash would be told that nothing has changed.
        self.state = {"seen": still_needed(seen, report), "validators": report.validators}
        if not new:
            raise NothingNew
        self.inner_stop()

    def get_source_channel(self, **processed_data: Any) -> str:
        return "ssh-client"

    def get_output_data_body(self, **processed_data: Any) -> bytes:
        line: bytes = processed_data["line"]
        return line

    def _download(self, validators: dict[str, str]) -> Report | None:
        """The report; None if it is unchanged since the server sent `validators`."""
        response = get(self.config["url"], validators)
        if response is None:
            return None
        report = parse(response.content)
        if b"\n# Statistics" not in response.content:
            LOGGER.warning("the report has no totals at its end: it may be cut off, and is asked for again")
            return report
        now = {name: response.headers[name] for name in CONDITIONS if name in response.headers}
        return report._replace(validators=now)


def still_needed(seen: dict[bytes, datetime], report: Report) -> dict[bytes, datetime]:
    """The part of `seen` that this report or a later one may show again."""
    return {line: time for line, time in seen.items() if time >= report.begin or line in report.records}


def parse(body: bytes) -> Report:
    """The report in `body`.

    Raises:
        CollectorError: `body` is no report, or not all of it.
    """
    if not body.startswith(b"#"):
        raise CollectorError(f"the source sent something else: {body[:60]!r}...; nothing was published")
    if not body.endswith(b"\n"):
        raise CollectorError("the report ends in the middle of a line; nothing was published")
    records = {}
    others = []
    for line in map(bytes.rstrip, io.BytesIO(body)):
        if line.startswith(b"#") or not line:
            continue
        try:
            _asn, _name, _address, time, _category = line.decode("utf-8", "replace").split("|")
            records[line] = datetime.strptime(time.strip(), "%Y-%m-%d %H:%M:%S")
        except ValueError:
            others.append(line)
    if others:
        LOGGER.warning("%d lines are no records, left out; the first: %r", len(others), others[0][:100])
    week = re.search(rb"^# (\d{4}-\d\d-\d\d \d\d:\d\d) - \d{4}-", body, re.MULTILINE)
    return Report(records, datetime.fromisoformat(week[1].decode()) if week else datetime.min, {})


def get(url: str, validators: dict[str, str]) -> httpx.Response | None:
    """GET `url`; None if it is unchanged since the server sent `validators`.

    Raises:
        CollectorError: there was no whole answer, several times over.
    """
    try:
        response = try_to_get(url, {CONDITIONS[name]: value for name, value in validators.items()})
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        reason = str(exc)
        if isinstance(exc, httpx.HTTPStatusError):
            reason = f"{exc.response.status_code} {exc.response.reason_phrase}"
        raise CollectorError(f"{url} could not be downloaded: {reason}; nothing was published") from exc
    return None if response.status_code == httpx.codes.NOT_MODIFIED else response


def may_pass(exc: Exception) -> bool:
    """Whether the next attempt may do better."""
    if isinstance(exc, httpx.HTTPStatusError):
        return exc.response.status_code in (429, 500, 502, 503, 504)
    return isinstance(exc, httpx.TransportError)


# stamina, since httpx itself only ever tries again to connect.
@stamina.retry(on=may_pass, attempts=4, timeout=300, wait_initial=1)
def try_to_get(url: str, headers: dict[str, str]) -> httpx.Response:
    """One GET, and up to three more if it fails in a way that may pass."""
    response = httpx.get(url, headers=headers, timeout=TIMEOUT, follow_redirects=True)
    return response if response.status_code == httpx.codes.NOT_MODIFIED else response.raise_for_status()


if __name__ == "__main__":
    DataplaneCollector.run_script()
