"""A finished collector of a TAXII 2.1 collection: JSON, page after page, oldest first.

Each object goes out as a message of its own. The cursor is what the server must be asked with: its `next`
as long as there is more, and after that the time when the last object was added.
The protocol: https://docs.oasis-open.org/cti/taxii/v2.1/taxii-v2.1.html (sections 3.4, 3.5 and 5.4). Who one
is goes into the option `base_request_headers`.
"""

from __future__ import annotations

from urllib.parse import urlencode

from n6_stateful.bases import (
    BaseDownloadingCollector,
    BasePagedCollector,
    CursorForgottenError,
    DownloadError,
    Page,
)

HEADERS = {"Accept": "application/taxii+json;version=2.1"}


class TaxiiCollector(BaseDownloadingCollector, BasePagedCollector):
    source_channel = "taxii"
    config_spec = """
        [taxii]
        source :: str
        cache_dir :: path
        url :: str                      ; https://.../collections/<id>/objects/
        objects_per_page = 500 :: int
    """

    def first_cursor(self) -> dict[str, str]:
        return {}

    def download_page(self, cursor: dict[str, str]) -> Page:
        query = {"limit": str(self.config["objects_per_page"]), **cursor}
        until = query.pop("until", "")
        try:
            answer = self.request(f"{self.config['url']}?{urlencode(query)}", custom_request_headers=HEADERS)
        except DownloadError as exc:
            if exc.status in (400, 404, 410) and "next" in cursor:
                raise CursorForgottenError(str(exc)) from exc
            raise
        page = answer.json()
        objects, more = page.get("objects", []), page.get("more", False)
        until = answer.headers["X-TAXII-Date-Added-Last"] if objects else until
        if more and page.get("next"):
            return Page(objects, {**cursor, "next": page["next"], "until": until}, True)
        return Page(objects, {"added_after": until, "until": until} if until else cursor, more)

    def replace_cursor(self, cursor: dict[str, str], error: Exception) -> dict[str, str]:
        return {name: cursor[name] for name in cursor if name == "added_after"}


if __name__ == "__main__":
    TaxiiCollector.run_script()
