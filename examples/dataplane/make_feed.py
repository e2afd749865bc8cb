"""Makes a feed in the format of dataplane.org's lists, with invented records.

    python examples/dataplane/make_feed.py [RECORDS] > examples/dataplane/feed.txt

The real ones: https://dataplane.org/ (for instance sshclient.txt): a block of `#` lines, then
`ASN  |  ASname  |  ipaddr  |  lastseen  |  category`, sorted by ASN, with times that many records share.
Addresses and AS numbers are those set aside for documentation.
"""

from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta

HEADER = """\
# Dataplane.org
#
# SSH client
# Invented records in the format of the real list
#
# ASN  |  ASname  |  ipaddr  |  lastseen  |  category
"""
FIRST = datetime(2026, 1, 1)
NETWORKS = ("192.0.2", "198.51.100", "203.0.113")


def record(number: int) -> str:
    """The line of record `number` (from 0). Sevens share their time."""
    chance = random.Random(number)  # noqa: S311 - invented data, the same at each call
    seen = FIRST + timedelta(minutes=number // 7)
    asn = chance.randrange(64496, 64512)
    address = f"{NETWORKS[number // 256 % 3]}.{number % 256}"
    name = f"EXAMPLE-AS{asn}"
    return f"{asn:<8}  |  {name:<30}  |  {address:<15}  |  {seen:%Y-%m-%d %H:%M:%S}  |  sshclient"


def feed(begin: int, end: int) -> bytes:
    """The feed when it holds the records from `begin` up to `end` (not included), sorted as the real one."""
    return (HEADER + "".join(f"{line}\n" for line in sorted(map(record, range(begin, end))))).encode()


if __name__ == "__main__":
    sys.stdout.buffer.write(feed(0, int(sys.argv[1]) if len(sys.argv) > 1 else 1400))
