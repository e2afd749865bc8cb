"""A whole list that replaces the one before: a blacklist, say."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from n6_stateful.bases.downloading import BaseDownloadingCollector, looks_like_html
from n6_stateful.bases.shape import BODY, StatefulBaseCollector, checked
from n6_stateful.errors import NothingNew


class BaseDownloadingListCollector(BaseDownloadingCollector, StatefulBaseCollector):
    """Publishes the list at `url` whenever it has changed; nothing needs to be written. A page of HTML, with
    which servers report errors, is refused.

    The state is `{"validators": ..., "digest": ...}`: what the server calls the list that was published last,
    and its digest, for servers that know no conditions.
    """

    raw_type = "blacklist"
    content_type = "text/plain"
    extra_config_options = """
        url :: str  ; where the list is, http or https
    """

    def obtain_data_body(self) -> bytes | None:
        """The whole list; None, or `NothingNew`, if it has not changed."""
        answer = self.request(self.config["url"], validators=self.state["validators"])
        self.state["validators"] = answer.validators
        return answer.content

    def is_expected(self, content_type: str, beginning: bytes) -> bool:
        """Whether it is not HTML."""
        return not looks_like_html(content_type, beginning)

    def get_state_keys(self) -> frozenset[str]:
        """What `make_default_state` has."""
        return frozenset(("validators", "digest"))

    def make_default_state(self) -> dict[str, Any]:
        """No list was published yet."""
        return {"validators": {}, "digest": b""}

    def start_publishing(self) -> None:
        """Publish the list if it is not the one that was published last."""
        body = checked("obtain_data_body()", self.obtain_data_body(), *BODY, type(None))
        if body is None:
            raise NothingNew("the server says so")
        body = bytes(body)
        digest = blake2b(body, digest_size=16).digest()
        if digest == self.state["digest"]:
            raise NothingNew("the list is the one that was published last")
        self.state["digest"] = digest
        self.publish_output(*self.get_output_components(data_body=body))
        self.inner_stop()

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
        """The list."""
        return processed_data["data_body"]
