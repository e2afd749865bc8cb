"""Collects what is new at the source <<cookiecutter.source_provider>>.<<cookiecutter.source_channel>>."""

from __future__ import annotations

<% if cookiecutter.download == "http" %>
import hashlib
import logging
import re
<% endif %>
from typing import Any

<% if cookiecutter.download == "http" %>
import requests
import stamina
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
from requests.exceptions import ChunkedEncodingError

TIMEOUT = (10, 60)  # seconds: to connect, and between two parts of the answer
CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
logging.getLogger("stamina").setLevel(logging.ERROR)  # a try that is repeated is no news for cron's mail
<% endif %>


class <<cookiecutter.collector_name|class_name>>(CollectorWithStateMixin, BaseCollector):
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
        headers = {CONDITIONS[name]: value for name, value in seen.items() if name in CONDITIONS}
        try:
            response = get(self.config["url"], headers)
        except requests.RequestException as exc:
            # What follows a ? may be a key, and belongs in no log.
            told = re.sub(r"(?<=\?)[^\s)]+|(?<=//)[^\s/]+(?=@)", "...", str(exc))
            raise CollectorError(f"the download failed: {told}; nothing was published") from None
        # Some servers know no conditions, and some say a page is new when only its date is.
        digest = hashlib.sha256(response.content).hexdigest()
        if response.status_code == requests.codes.not_modified or digest == seen.get("sha256"):
            return None
        now = {name: response.headers[name] for name in CONDITIONS if name in response.headers}
        return Download(response.content, time_utc={**now, "sha256": digest})


def may_pass(exc: Exception) -> bool:
    """Whether it makes sense to try again at once."""
    if isinstance(exc, requests.HTTPError):
        return exc.response.status_code in (500, 502, 503, 504)
    return isinstance(exc, requests.ConnectionError | requests.Timeout | ChunkedEncodingError)


# Not urllib3's Retry, which does not try again when an answer breaks off half-way.
@stamina.retry(on=may_pass, attempts=4, timeout=300)
def get(url: str, headers: dict[str, str]) -> requests.Response:
    """The whole answer (304 is one, too), after up to four tries."""
    response = requests.get(url, headers=headers, timeout=TIMEOUT)
    response.raise_for_status()
    return response
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
