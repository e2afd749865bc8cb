"""A finished collector of abuse.ch URLhaus' CSV export: `#` lines, then quoted CSV, newest first.

A row has the time when it was added, in UTC. While a URL is online, other fields of its row change, so a row
is identified by its id. What is new becomes one message. The source: https://urlhaus.abuse.ch/api/ (at most
one download in five minutes, and with the `auth-key` that you get there in the URL).
"""

from __future__ import annotations

from datetime import datetime

from n6_stateful.bases import BaseDownloadingTimeOrderedRowsCollector, extract_field_from_csv_row


class UrlhausCollector(BaseDownloadingTimeOrderedRowsCollector):
    source_channel = "urlhaus"
    config_spec = """
        [urlhaus]
        source :: str
        cache_dir :: path
        url :: str
    """

    def pick_raw_row_time(self, row: str) -> str:
        return extract_field_from_csv_row(row, 1)

    def clean_row_time(self, raw_row_time: str) -> str:
        return str(datetime.fromisoformat(raw_row_time))

    def row_key(self, row: str) -> str:
        return extract_field_from_csv_row(row, 0)


if __name__ == "__main__":
    UrlhausCollector.run_script()
