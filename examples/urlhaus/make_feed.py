"""Makes a feed in the format of abuse.ch URLhaus' CSV export, with invented records.

    python examples/urlhaus/make_feed.py [RECORDS] > examples/urlhaus/feed.csv

The real one: https://urlhaus.abuse.ch/api/ (`csv_recent`): a block of `#` lines, then quoted CSV, newest
first, lines ending in CR LF. Hosts and addresses are those set aside for documentation.
"""

from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta

HEADER = """\
################################################################
# abuse.ch URLhaus Database Dump (CSV - recent URLs only)      #
# Last updated: {updated} (UTC)                     #
#                                                              #
# Invented records in the format of the real dump              #
################################################################
#
# id,dateadded,url,url_status,last_online,threat,tags,urlhaus_link,reporter
"""
FIRST = datetime(2026, 1, 1)
NETWORKS = ("192.0.2", "198.51.100", "203.0.113")


def record(number: int) -> tuple[datetime, str]:
    """Record `number` (from 0): when it was added, and its line. The same number gives the same record."""
    chance = random.Random(number)  # noqa: S311 - invented data, the same at each call
    added = FIRST + timedelta(seconds=97 * (number // 3))  # threes share their second
    host = chance.choice([f"{chance.choice(NETWORKS)}.{chance.randrange(256)}", f"host{number}.example.com"])
    url = f"http://{host}:{chance.randrange(1024, 65536)}/{chance.choice(['i', 'bin.sh', 'a,b', 'mozi.m'])}"
    status = chance.choice(["online", "offline"])
    online = f"{added:%Y-%m-%d %H:%M:%S}" if status == "online" else ""
    tags = chance.choice(["elf,mirai", "32-bit,elf,mips,Mozi", "exe", ""])
    number_there = 3_400_000 + number
    fields = [
        str(number_there),
        f"{added:%Y-%m-%d %H:%M:%S}",
        url,
        status,
        online,
        "malware_download",
        tags,
        f"https://urlhaus.example/url/{number_there}/",
        f"reporter{chance.randrange(9)}",
    ]
    return added, ",".join(f'"{field}"' for field in fields)


def feed(begin: int, end: int) -> bytes:
    """The feed when it holds the records from `begin` up to `end` (not included)."""
    records = [record(number) for number in range(begin, end)]
    updated = records[-1][0] if records else FIRST
    lines = [*HEADER.format(updated=updated).splitlines(), *(line for _, line in reversed(records))]
    return "".join(f"{line}\r\n" for line in lines).encode()


if __name__ == "__main__":
    sys.stdout.buffer.write(feed(0, int(sys.argv[1]) if len(sys.argv) > 1 else 1200))
