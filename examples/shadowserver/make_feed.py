"""Makes a report of Shadowserver's and the mail that links to it, with invented records.

    python examples/shadowserver/make_feed.py DIRECTORY URL [NUMBER]

Writes `report-NUMBER.csv` and `mail-NUMBER.eml` with a link below the URL. Addresses are those set aside for
documentation.
"""

from __future__ import annotations

import random
import sys
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.defacements.make_feed import FIRST_TIME
from examples.shadowserver.collector import CHANNELS


def report(number: int) -> bytes:
    """The CSV of report `number` (from 0); the same each time."""
    chance = random.Random(number)  # noqa: S311 - invented data, the same at each call
    rows = (
        f'"2026-01-01 00:{row:02}:00","192.0.2.{chance.randrange(256)}","tcp",23,"EXAMPLE-{row}"\r\n'
        for row in range(20)
    )
    return ('"timestamp","ip","protocol","port","hostname"\r\n' + "".join(rows)).encode()


def mail(number: int, url: str) -> bytes:
    """The mail about report `number`, which is below `url`."""
    message = EmailMessage()
    message["From"] = "Shadowserver Reports <autoreports@shadowserver.example>"
    message["To"] = "reports@csirt.example"
    message["Subject"] = (
        f"[UK] Shadowserver Poland {sorted(CHANNELS)[number % len(CHANNELS)]} Report: 2026-01-01"
    )
    message["Date"] = format_datetime(FIRST_TIME)
    message["Message-ID"] = f"<{number}@shadowserver.example>"
    message.set_content(
        f"Your report is at\n\n    {url}report-{number}.csv\n\nIt will be there for a week.\n"
    )
    message.add_alternative(f"<p><a href='{url}report-{number}.csv'>Your report</a></p>", subtype="html")
    return message.as_bytes()


def write_feed(directory: Path, url: str, number: int = 0) -> bytes:
    """Write report and mail number `number`; the mail."""
    (directory / f"report-{number}.csv").write_bytes(report(number))
    (directory / f"mail-{number}.eml").write_bytes(mail(number, url))
    return mail(number, url)


if __name__ == "__main__":
    write_feed(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
