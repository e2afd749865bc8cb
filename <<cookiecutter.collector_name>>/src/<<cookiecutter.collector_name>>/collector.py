"""Collects what is new at the source <<cookiecutter.source_provider>>.<<cookiecutter.source_channel>>."""

from __future__ import annotations

<% if cookiecutter.download == "http" %>
import hashlib
<% endif %>
from typing import Any

<% if cookiecutter.download == "http" %>
import requests
<% endif %>
from n6_stateful import (
    BaseCollector,
<% if cookiecutter.download == "http" %>
    CollectorError,
<% endif %>
    CollectorWithStateMixin,
    Download,
<% if cookiecutter.download == "fill in" %>
    NotFilledInError,
<% endif %>
    NothingNew,
)
<% if cookiecutter.download == "http" %>
from requests.adapters import HTTPAdapter
from urllib3.util import Retry
<% endif %>


class <<cookiecutter.__class_name>>(CollectorWithStateMixin, BaseCollector):
    type = "<<cookiecutter.raw_type>>"
<% if cookiecutter.raw_type != "stream" %>
    content_type = "<<cookiecutter.content_type>>"
<% endif %>
    config_spec = """
        [<<cookiecutter.collector_name>>]
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
        return "<<cookiecutter.source_channel>>"

    def get_output_data_body(self, **processed_data: Any) -> bytes:
        return self._collect_data()

    def _collect_data(self) -> bytes:
        data = self._download(only_newer_than=self.state.get("last_utc"))
        if data is None:
            raise NothingNew
        self.state["last_utc"] = data.time_utc
        return data

<% if cookiecutter.download == "http" %>
    def _download(self, only_newer_than: Any) -> Download | None:
        """GET `url` if it has changed; `only_newer_than` is what the server said of it the last time."""
        seen: dict[str, str] = only_newer_than or {}
        conditions = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}
        headers = {header: seen[name] for name, header in conditions.items() if name in seen}
        retry = Retry(total=3, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
        url = self.config["url"]
        try:
            with requests.Session() as session:
                for scheme in ("https://", "http://"):
                    session.mount(scheme, HTTPAdapter(max_retries=retry))
                response = session.get(url, headers=headers, timeout=(10, 60))  # connect, read: seconds
                response.raise_for_status()
        except requests.RequestException as exc:
            raise CollectorError(f"{url} could not be downloaded: {exc}; nothing was published") from exc
        # Some servers know no conditions, and some say a page is new when only its date is.
        digest = hashlib.sha256(response.content).hexdigest()
        if response.status_code == 304 or digest == seen.get("sha256"):
            return None
        now = {name: response.headers[name] for name in conditions if name in response.headers}
        return Download(response.content, time_utc={**now, "sha256": digest})
<% else %>
    def _download(self, only_newer_than: Any) -> Download | None:
        """Download what is new at `self.config["url"]`.

        Args:
            only_newer_than: the `time_utc` of the download before; None at the first run.

        Returns:
            `Download(body, time_utc=...)` with the bytes to publish and how new they are; None if there
            is nothing newer.
        """
        raise NotFilledInError(f"fill in {type(self).__name__}._download() in {__file__}")
<% endif %>
