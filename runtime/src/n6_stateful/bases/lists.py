"""A complete list, such as a blacklist, that replaces the previous one."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from n6_stateful.bases.downloading import BaseDownloadingCollector, looks_like_html
from n6_stateful.bases.shape import StatefulBaseCollector
from n6_stateful.bases.two_phase import BaseSimpleCollector


class BaseDownloadingListCollector(BaseDownloadingCollector, StatefulBaseCollector, BaseSimpleCollector):
    """Publishes the list at `url` whenever it has changed; nothing needs to be written. An HTML page, such as
    a server's error message, is an error.

    The state is `{"validators": ..., "digest": ...}`, both of the list published last. The digest is for
    servers that ignore conditional requests.
    """

    raw_type = "blacklist"
    content_type = "text/plain"
    state_keys = "validators", "digest"
    extra_config_options = """
        url :: str  ; where the list is, http or https
    """

    def obtain_data_body(self) -> bytes | None:
        """The complete list; None, or `NothingNew`, if it has not changed."""
        answer = self.request(self.config["url"], validators=self.state["validators"])
        self.state["validators"] = answer.validators
        return answer.content

    def is_expected(self, content_type: str, beginning: bytes) -> bool:
        """Whether it is not HTML."""
        return not looks_like_html(content_type, beginning)

    def make_default_state(self) -> dict[str, Any]:
        """No list was published yet."""
        return {"validators": {}, "digest": b""}

    def obtain_input_pile(self) -> Any:
        """The list; None if it equals the one published last."""
        pile = super().obtain_input_pile()
        digest = pile and blake2b(bytes(pile["data_body"]), digest_size=16).digest()
        if digest in (None, self.state["digest"]):
            return None
        self.state["digest"] = digest
        return pile
