"""Makes a feed in the format of abuse.ch URLhaus' CSV export, with invented records.

    python examples/urlhaus/make_feed.py [RECORDS] > feed.csv

The real one (https://urlhaus.abuse.ch/api/): a block of `#` lines, then quoted CSV, newest first, lines
ending in CR LF. A record keeps its id, while its status and the time when it was last online change from
export to export. Hosts and addresses are those set aside for documentation.
"""

from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta

FIRST_ID = 3_400_000
FIRST_TIME = datetime(2026, 1, 1)
NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
ONLINE_RECORDS = 200  # of the newest ones, some are online
TIME = "%Y-%m-%d %H:%M:%S"


def added(number: int) -> datetime:
    """When record `number` (from 0) was added; three records share a second."""
    return FIRST_TIME + timedelta(seconds=97 * (number // 3))


def record(number: int, end: int) -> str:
    """Record `number` as an export shows it that ends before record `end`; the same each time."""
    chance = random.Random(number)  # noqa: S311 - invented data, the same at each call
    host = chance.choice([f"{chance.choice(NETWORKS)}.{chance.randrange(256)}", f"host{number}.example.com"])
    path = chance.choice(["i", "bin.sh", "a,b;c", 'say ""hi""', "Mozi.m"])
    online = number >= end - ONLINE_RECORDS and chance.random() < 0.5
    tags = chance.choice(["elf,mirai", "32-bit,elf,mips,Mozi", "exe", "None"])
    fields = [
        str(FIRST_ID + number),
        f"{added(number):{TIME}}",
        f"http://{host}:{chance.randrange(1024, 65536)}/{path}",
        "online" if online else "offline",
        f"{added(end - 1):{TIME}}" if online else "",
        "malware_download",
        tags,
        f"https://urlhaus.example/url/{FIRST_ID + number}/",
        f"reporter{chance.randrange(9)}",
    ]
    return ",".join(f'"{field}"' for field in fields)


def header(updated: datetime) -> list[str]:
    """The `#` lines."""
    lines = [
        "abuse.ch URLhaus Database Dump (CSV - recent URLs only)",
        f"Last updated: {updated:{TIME}} (UTC)",
        "",
        "Invented records in the format of the real dump",
    ]
    return [
        "#" * 64,
        *(f"# {line:<60} #" for line in lines),
        "#" * 64,
        "#",
        "# id,dateadded,url,url_status,last_online,threat,tags,urlhaus_link,reporter",
    ]


def feed(begin: int, end: int) -> bytes:
    """The export that holds the records from `begin` up to `end` (not included)."""
    records = [record(number, end) for number in reversed(range(begin, end))]
    return "".join(f"{line}\r\n" for line in [*header(added(end - 1)), *records]).encode()


if __name__ == "__main__":
    sys.stdout.buffer.write(feed(0, int(sys.argv[1]) if len(sys.argv) > 1 else 1200))
