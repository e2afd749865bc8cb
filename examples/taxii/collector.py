"""A finished collector of a TAXII 2.1 collection: JSON, page after page, oldest first.

Each object becomes a message of its own. The cursor holds the parameters of the next request: the server's
`next` while there is more, after that the time when the last object was added. Some servers do not follow the
protocol. If they do not send the header with this time, the time of the first answer is used. If they ignore
`added_after`, they begin at the first object in each run; then pages that are not newer are skipped, and only
new objects of the last page are published.

The protocol: https://docs.oasis-open.org/cti/taxii/v2.1/taxii-v2.1.html (sections 3.4, 3.5 and 5.4). A login
goes into the option `base_request_headers`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

from n6_stateful import SourceError
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

    def first_cursor(self) -> dict[str, Any]:
        return {"first": "", "known": []}  # versions: the first one of all, and those on the last page

    def download_page(self, cursor: dict[str, Any]) -> Page:
        asked: dict[str, Any] = {name: cursor[name] for name in ("added_after", "next") if name in cursor}
        query = urlencode({"limit": self.config["objects_per_page"], **asked})
        try:
            answer = self.request(f"{self.config['url']}?{query}", custom_request_headers=HEADERS)
        except DownloadError as exc:
            if exc.status in (400, 404, 410) and "next" in cursor:
                raise CursorForgottenError(str(exc)) from exc
            raise
        page = answer.json()
        if not isinstance(page, dict):
            raise SourceError(f"expected a TAXII envelope, got {page!r:.60}")
        objects, more = page.get("objects", []), page.get("more", False)
        versions = [f"{item['id']} {item.get('modified', '')}" for item in objects]
        first, known, after = cursor["first"], cursor["known"], cursor.get("added_after", "")
        last = answer.headers.get("X-TAXII-Date-Added-Last", "")
        if objects and not last and ((more and "next" not in page) or (after and versions[0] == first)):
            raise SourceError(
                "the server sends neither X-TAXII-Date-Added-Last nor `next`, or ignores `added_after`; "
                "nothing was published; read the whole collection, with the shape items"
            )
        if last and after and datetime.fromisoformat(last) <= datetime.fromisoformat(after):
            objects, until = [], after
        else:
            objects = [item for item, name in zip(objects, versions, strict=True) if name not in known]
            known = versions or known
            until = last or cursor.get("until") or (_date(answer.headers) if versions else after)
        kept = {"first": first or "".join(versions[:1]), "known": known}
        if more and "next" in page:
            return Page(objects, {**asked, **kept, "next": page["next"], "until": until}, True)
        if until == after and not objects and not more:
            return Page([], cursor, False)
        return Page(objects, {"added_after": until, **kept} if until else cursor, more)

    def replace_cursor(self, cursor: dict[str, Any], error: Exception) -> dict[str, Any]:
        return {name: cursor[name] for name in cursor if name not in ("next", "until")}


def _date(headers: Any) -> str:
    return f"{parsedate_to_datetime(headers['Date']).astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


if __name__ == "__main__":
    TaxiiCollector.run_script()
