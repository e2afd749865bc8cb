"""Makes an RSS 2.0 feed of defaced websites, with invented records.

    python examples/defacements/make_feed.py [ITEMS] > feed.xml

As such feeds are: the newest items only, each with a guid and a time, and no order to rely on. Hosts and
addresses are those set aside for documentation.
"""

from __future__ import annotations

import random
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

FIRST_TIME = datetime(2026, 1, 1, tzinfo=UTC)
SHOWN = 50

HEAD = """\
<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0"><channel>
<title>Defacements (invented)</title>
<link>https://defaced.example/</link>
<description>Websites that were changed by others than their owners</description>
"""


def item(number: int) -> str:
    """Item `number` (from 0); the same each time."""
    chance = random.Random(number)  # noqa: S311 - invented data, the same at each call
    host = f"www{number}.example.{chance.choice(['com', 'net', 'org'])}"
    when = FIRST_TIME + timedelta(minutes=11 * number)
    return (
        f"<item><title>http://{host}/ notified by crew-{chance.randrange(9)} &amp; friends</title>\n"
        f'<guid isPermaLink="false">{4_000_000 + number}</guid>\n'
        f"<link>https://defaced.example/mirror/{4_000_000 + number}/</link>\n"
        f"<pubDate>{format_datetime(when)}</pubDate></item>\n"
    )


def feed(end: int, shown: int = SHOWN) -> bytes:
    """The feed that shows the last `shown` items before number `end`, in any order."""
    numbers = list(range(max(0, end - shown), end))
    random.Random(end).shuffle(numbers)  # noqa: S311
    return (HEAD + "".join(map(item, numbers)) + "</channel></rss>\n").encode()


if __name__ == "__main__":
    sys.stdout.buffer.write(feed(int(sys.argv[1]) if len(sys.argv) > 1 else SHOWN))
