"""Makes a report in the format of dataplane.org's, with invented records.

    python examples/dataplane/make_feed.py [SIGHTINGS] > feed.txt

The real ones (https://dataplane.org/, for instance sshclient.txt): `#` lines with the week covered, then
`ASN  |  ASname  |  ipaddr  |  lastseen  |  category`, sorted by ASN, and `#` lines with totals. An address
is listed once, with the time when it was last seen; many share a time. Addresses and AS numbers are those
set aside for documentation.
"""

from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta

HEADER = """\
# DataPlane.org - for operators, by operators
# sshclient
# {begin:%Y-%m-%d %H}:00 - {end:%Y-%m-%d %H}:00
#
# Invented records in the format of the real report
#
# ASN  |  ASname  |  ipaddr  |  lastseen  |  category
#
"""
FOOTER = """\
#
# Statistics
#        ASNs: {asns}
#   Addresses: {addresses}
"""
FIRST_TIME = datetime(2026, 1, 1)
WEEK = timedelta(days=7)
NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
IPV4_HOSTS = len(NETWORKS) * 256
HOSTS = 2 * IPV4_HOSTS


def seen(number: int) -> datetime:
    """The time of sighting `number` (from 0); seven sightings share one."""
    return FIRST_TIME + timedelta(minutes=number // 7)


def sighting(number: int) -> tuple[int, str, str]:
    """The host of sighting `number`, its AS and its line; the same each time."""
    host = random.Random(number).randrange(HOSTS)  # noqa: S311 - invented data, the same at each call
    asn = str(64496 + host % 16) if host % 17 else "NA"
    name = f"EXAMPLE-{asn} Example {asn}, Inc"[:30] if host % 17 else "NA"
    v4 = host < IPV4_HOSTS
    address = f"{NETWORKS[host // 256]}.{host % 256}" if v4 else f"2001:db8::{host:x}"
    return host, asn, f"{asn:<11}  |  {name:<30}  |  {address:>15}  |  {seen(number)}  |  sshclient"


def feed(begin: int, end: int) -> bytes:
    """The report that covers the sightings from `begin` up to `end` (not included)."""
    latest = {}
    for number in range(begin, end):
        host, asn, line = sighting(number)
        latest[host] = (asn.zfill(10), line)
    hour = seen(end - 1).replace(minute=0) + timedelta(hours=1)
    header = HEADER.format(begin=seen(begin).replace(minute=0) if begin else hour - WEEK, end=hour)
    footer = FOOTER.format(asns=len({asn for asn, _ in latest.values()}), addresses=len(latest))
    return (header + "".join(f"{line}\n" for _, line in sorted(latest.values())) + footer).encode()


if __name__ == "__main__":
    sys.stdout.buffer.write(feed(0, int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
