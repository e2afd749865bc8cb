"""Makes a TAXII collection's objects, with invented records: one JSON line each, with the time it was added.

    python examples/taxii/make_feed.py [OBJECTS] > feed.jsonl

The objects are STIX 2.1 indicators (https://docs.oasis-open.org/cti/stix/v2.1/stix-v2.1.html, section 4.7) of
addresses set aside for documentation. `server.py` serves them page by page.
"""

from __future__ import annotations

import json
import random
import sys
import uuid
from datetime import datetime, timedelta
from typing import Any

FIRST_TIME = datetime(2026, 1, 1)
NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
TOGETHER = 7  # so many were added at the same instant


def added(number: int) -> str:
    """When object `number` (from 0) was added to the collection."""
    return f"{FIRST_TIME + timedelta(seconds=61 * (number // TOGETHER)):%Y-%m-%dT%H:%M:%S.%fZ}"


def indicator(number: int) -> dict[str, Any]:
    """Object `number`; the same each time."""
    chance = random.Random(number)  # noqa: S311 - invented data, the same at each call
    address = f"{chance.choice(NETWORKS)}.{chance.randrange(256)}"
    return {
        "type": "indicator",
        "spec_version": "2.1",
        "id": f"indicator--{uuid.UUID(int=chance.getrandbits(128), version=4)}",
        "created": added(number),
        "modified": added(number),
        "name": f"Scanner {address}",
        "indicator_types": ["malicious-activity"],
        "pattern": f"[ipv4-addr:value = '{address}']",
        "pattern_type": "stix",
        "valid_from": added(number),
    }


def feed(begin: int, end: int) -> bytes:
    """The lines for the objects from `begin` up to `end` (not included)."""
    objects = ({"added": added(number), "object": indicator(number)} for number in range(begin, end))
    return "".join(f"{json.dumps(line)}\n" for line in objects).encode()


if __name__ == "__main__":
    sys.stdout.buffer.write(feed(0, int(sys.argv[1]) if len(sys.argv) > 1 else 1200))
