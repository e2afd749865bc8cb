"""A finished collector of abuse.ch URLhaus' CSV export: `#` lines, then quoted CSV, newest first.

Each record has a number that grows, so the number of the newest one taken is all there is to remember.
"""

from __future__ import annotations

import logging
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from n6_stateful import BaseCollector, CollectorError, CollectorWithStateMixin, Download, NothingNew

LOGGER = logging.getLogger(__name__)


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
        super().run()
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

    # The user's part: from here on it is what the demo fills in.

    def _download(self, only_newer_than: Any) -> Download | None:
        """The records with a number above `only_newer_than`, newest first, as they are in the feed."""
        rows = []
        newest = only_newer_than or 0
        oldest = None
        for line in self._get(self.config["url"]).splitlines(keepends=True):
            number = line.partition(b",")[0].strip(b'"')
            if not number.isdigit():
                if line.strip() and not line.startswith(b"#"):
                    LOGGER.warning("no record, left out: %r", line[:100])
                continue
            oldest = int(number)
            if oldest <= (only_newer_than or 0):
                break
            newest = max(newest, oldest)
            rows.append(line)
        if only_newer_than and oldest and oldest > only_newer_than + 1:
            LOGGER.warning(
                "the feed begins at record %d, the last one taken was %d: records in between may be missed; "
                "run more often",
                oldest,
                only_newer_than,
            )
        return Download(b"".join(rows), time_utc=newest) if rows else None

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
    UrlhausCollector.run_script()
