"""Serves a file of `make_feed.py` as the objects of a TAXII 2.1 collection.

    python examples/taxii/server.py FILE [PORT]

It knows the parameters `added_after`, `limit` and `next`; the collection grows when the file does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.feed_server import FeedServer, main

MOST_PER_PAGE = 1000


class TaxiiServer(FeedServer):
    """Answers with the page that is asked for.

    Attributes:
        sends_next: whether it sends `next`; the protocol lets a server leave it out, and the client go on
            with `added_after`.
        forgets: whether it no longer knows any `next` that it has sent.
        dates: whether it says when objects were added.
        filters: whether it heeds `added_after`.
    """

    sends_next = True
    forgets = False
    dates = True
    filters = True

    def answer(self, name: str, parameters: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """One page: an envelope as section 3.7 of the protocol has it."""
        every = list(map(json.loads, self.file.read_text().splitlines()))
        after = parameters.get("added_after", "") if self.filters else ""
        listed = [item for item in every if item["added"] > after]
        begin = int(parameters.get("next", 0))
        if begin and self.forgets:
            return 400, {}, b""
        end = begin + min(int(parameters.get("limit", MOST_PER_PAGE)), MOST_PER_PAGE)
        if not self.sends_next:  # then a page must not end amid objects that were added at the same instant
            while 0 < end < len(listed) and listed[end]["added"] == listed[end - 1]["added"]:
                end += 1
        page = listed[begin:end]
        envelope = {"more": len(listed) > end, "objects": [item["object"] for item in page]}
        if envelope["more"] and self.sends_next:
            envelope["next"] = str(end)
        headers = {"Content-Type": "application/taxii+json;version=2.1"}
        if page and self.dates:
            headers["X-TAXII-Date-Added-First"] = page[0]["added"]
            headers["X-TAXII-Date-Added-Last"] = page[-1]["added"]
        return 200, headers, json.dumps(envelope if page else {}).encode()


if __name__ == "__main__":
    main(TaxiiServer)
