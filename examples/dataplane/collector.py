"""A finished collector of dataplane.org's lists: fields between `|`, sorted by AS number.

Nothing in the list tells old from new for sure: many records share a time, and a record can come late. So it
remembers the records themselves, for as long as the list shows them (a week). It publishes each record as a
message of its own, and saves the state after each batch, so that a crash resumes right there.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from n6_stateful import BaseCollector, CollectorError, CollectorWithStateMixin, NothingNew

LOGGER = logging.getLogger(__name__)

REMEMBERED = timedelta(days=8)
BATCH = 500


class DataplaneCollector(CollectorWithStateMixin, BaseCollector):
    type = "stream"
    config_spec = """
        [dataplane]
        source :: str
        cache_dir :: path
        url :: str
    """

    def make_default_state(self) -> dict[bytes, datetime]:
        return {}

    def run(self) -> None:
        self.state = self.load_state()
        super().run()

    def start_publishing(self) -> None:
        records = self._download(self.state)
        if not records:
            raise NothingNew
        horizon = max(records.values()) - REMEMBERED
        self.state = {line: time for line, time in self.state.items() if time >= horizon}
        new = sorted(records, key=lambda line: (records[line], line))
        for begin in range(0, len(new), BATCH):
            for line in new[begin : begin + BATCH]:
                self.publish_output(*self.get_output_components(line=line))
                self.state[line] = records[line]
            self.save_state(self.state)  # waits until these have arrived
        self.inner_stop()

    def get_source_channel(self, **processed_data: Any) -> str:
        return "ssh-client"

    def get_output_data_body(self, **processed_data: Any) -> bytes:
        line: bytes = processed_data["line"]
        return line

    def _download(self, seen: dict[bytes, datetime]) -> dict[bytes, datetime]:
        """The records that are not among `seen`, each with its time."""
        found = {}
        for line in self._get(self.config["url"]).splitlines():
            if not line.strip() or line.startswith(b"#") or line in seen:
                continue
            try:
                _asn, _name, _address, time, _category = line.decode("ascii").split("|")
                found[line] = datetime.fromisoformat(time.strip())
            except ValueError:
                LOGGER.warning("no record, left out: %r", line[:100])
        return found

    def _get(self, url: str) -> bytes:
        """GET with timeouts; urllib3's Retry knows which errors pass, and honours Retry-After."""
        retry = Retry(total=3, backoff_factor=0.1, status_forcelist=(429, 500, 502, 503, 504))
        try:
            with requests.Session() as session:
                for scheme in ("https://", "http://"):
                    session.mount(scheme, HTTPAdapter(max_retries=retry))
                response = session.get(url, timeout=(10, 60))  # seconds to connect, and between bytes
                response.raise_for_status()
        except requests.RequestException as exc:
            raise CollectorError(f"{url} could not be downloaded: {exc}; nothing was published") from exc
        return response.content


if __name__ == "__main__":
    DataplaneCollector.run_script()
