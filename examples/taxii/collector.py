"""A finished collector of a TAXII 2.1 collection: JSON, page after page, oldest first.

Each object (of STIX) goes out as a message of its own, and the state, the place in the collection, is saved
after each page: a run that was killed goes on there, and no more than a page is ever in memory. The protocol:
https://docs.oasis-open.org/cti/taxii/v2.1/taxii-v2.1.html (sections 3.4 and 5.4).
"""

from __future__ import annotations

import json
import logging
from typing import Any, NamedTuple

import requests
import stamina
from n6_stateful import (
    BaseCollector,
    CollectorError,
    CollectorWithStateMixin,
    NothingNew,
)
from requests.exceptions import ChunkedEncodingError

LOGGER = logging.getLogger(__name__)

MEDIA_TYPE = "application/taxii+json;version=2.1"
TIMEOUT = (10, 60)  # seconds: to connect, and between two parts of the body


class Page(NamedTuple):
    """One page of the collection.

    Attributes:
        objects: STIX objects.
        more: whether another page follows.
        state: what has to be remembered to ask for what follows: the server's parameters `added_after` and
            `next`, and while `next` is followed, in `until`, when the newest object so far was added.
    """

    objects: list[dict[str, Any]]
    more: bool
    state: dict[str, str]


class TaxiiCollector(CollectorWithStateMixin, BaseCollector):
    type = "stream"
    config_spec = """
        [taxii]
        source :: str
        cache_dir :: path
        url :: str                      ; https://.../collections/<id>/objects/
        username = :: str
        password = :: str
        objects_per_page = 500 :: int
    """

    def make_default_state(self) -> dict[str, str]:
        return {}

    def run(self) -> None:
        self.state = self.load_state()
        super().run()

    def start_publishing(self) -> None:
        more = True
        while more:
            page = self._download(self.state)
            for stix_object in page.objects:
                self.publish_output(*self.get_output_components(stix_object=stix_object))
            if page.state != self.state:
                self.state = page.state
                self.save_state(self.state)  # returns only when these objects have arrived, too
            elif page.more:
                raise CollectorError(f"{self.config['url']} sends the same page again; {self._done()}")
            more = page.more
        if not self.published_count:
            raise NothingNew
        self.inner_stop()

    def get_source_channel(self, **processed_data: Any) -> str:
        return "taxii"

    def get_output_data_body(self, **processed_data: Any) -> bytes:
        return json.dumps(processed_data["stix_object"], sort_keys=True).encode()

    def _download(self, state: dict[str, str]) -> Page:
        """The page that follows on `state`.

        Raises:
            CollectorError: there was no whole page, several times over.
        """
        url = self.config["url"]
        login = (self.config["username"], self.config["password"]) if self.config["username"] else None
        parameters = {name: value for name, value in state.items() if name in ("added_after", "next")}
        parameters["limit"] = str(self.config["objects_per_page"])
        try:
            return page_of(try_to_get(url, parameters, login), state)
        except requests.HTTPError as exc:
            if exc.response.status_code in (400, 404, 410) and "next" in state:
                LOGGER.warning("the server does not know this page any more: some objects will come twice")
                return self._download({name: state[name] for name in state if name == "added_after"})
            reason = f"{exc.response.status_code} {exc.response.reason}"
            raise CollectorError(f"{url} could not be downloaded: {reason}; {self._done()}") from exc
        except (requests.RequestException, LookupError, AttributeError) as exc:
            raise CollectorError(f"{url} could not be downloaded: {exc!r}; {self._done()}") from exc

    def _done(self) -> str:
        return f"{self.published_count:,} objects before it were published"


def page_of(response: requests.Response, state: dict[str, str]) -> Page:
    """The page in the response to a request for what follows on `state`.

    Raises:
        requests.JSONDecodeError, LookupError, AttributeError: it is no page.
    """
    envelope = response.json()
    objects = envelope.get("objects", [])
    more = envelope.get("more", False)
    if objects:
        state = {**state, "until": response.headers["X-TAXII-Date-Added-Last"]}
    if more and envelope.get("next"):
        return Page(objects, True, {**state, "next": envelope["next"]})
    return Page(objects, more, {"added_after": state["until"]} if "until" in state else state)


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
def try_to_get(url: str, parameters: dict[str, str], login: tuple[str, str] | None) -> requests.Response:
    """One GET, and up to three more if it fails in a way that may pass."""
    headers = {"Accept": MEDIA_TYPE}
    response = requests.get(url, params=parameters, headers=headers, auth=login, timeout=TIMEOUT)
    response.raise_for_status()
    return response


if __name__ == "__main__":
    TaxiiCollector.run_script()
