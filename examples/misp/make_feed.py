"""Makes a MISP feed, with invented events: `manifest.json`, and a file for each event beside it.

    python examples/misp/make_feed.py DIRECTORY [EVENTS] [ROUND]

In each round after the first every seventh event is changed, and has a later timestamp. Addresses are those
set aside for documentation.
"""

from __future__ import annotations

import json
import random
import sys
import uuid
from pathlib import Path
from typing import Any

FIRST_TIME = 1_767_225_600  # 2026-01-01
NETWORKS = ("192.0.2", "198.51.100", "203.0.113")


def event(number: int, round_number: int = 0) -> dict[str, Any]:
    """Event `number` (from 0) as it is in a round; the same each time."""
    chance = random.Random(number)  # noqa: S311 - invented data, the same at each call
    version = round_number if number % 7 == 0 else 0
    return {
        "uuid": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
        "info": f"Scanners of day {number}, edition {version}",
        "date": "2026-01-01",
        "timestamp": str(FIRST_TIME + 3600 * number + 60 * version),
        "Attribute": [
            {"type": "ip-src", "value": f"{chance.choice(NETWORKS)}.{chance.randrange(256)}"}
            for _ in range(3 + version)
        ],
    }


def write_feed(directory: Path, end: int, round_number: int = 0) -> list[str]:
    """Write the events up to number `end` (not included) as they are in a round.

    Returns:
        The uuid and the timestamp of each, with a blank between them.
    """
    events = [event(number, round_number) for number in range(end)]
    for made in events:
        (directory / f"{made['uuid']}.json").write_text(json.dumps({"Event": made}))
    about = {made["uuid"]: {name: made[name] for name in ("info", "date", "timestamp")} for made in events}
    (directory / "manifest.json").write_text(json.dumps(about))
    return [f"{made['uuid']} {made['timestamp']}" for made in events]


if __name__ == "__main__":
    write_feed(Path(sys.argv[1]), *map(int, sys.argv[2:] or ["20"]))
