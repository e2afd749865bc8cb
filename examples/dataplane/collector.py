"""A finished collector of dataplane.org's reports: fields between `|`, sorted by AS number.

Many records share a time, and one can arrive late; a report covers a week, so none arrives later than that.
The records of that week are remembered by their digests, and those that are new become one message. Times are
UTC.
"""

from __future__ import annotations

from datetime import datetime

from n6_stateful.bases import BaseDownloadingTimeOrderedRowsCollector


class DataplaneCollector(BaseDownloadingTimeOrderedRowsCollector):
    source_channel = "ssh-client"
    content_type = "text/plain"
    config_spec = """
        [dataplane]
        source :: str
        cache_dir :: path
        url :: str
        late_by = 7d :: duration
    """

    def pick_raw_row_time(self, row: str) -> str:
        _asn, _name, _address, time, _category = row.split("|")
        return time.strip()

    def clean_row_time(self, raw_row_time: str) -> str:
        return str(datetime.fromisoformat(raw_row_time))


if __name__ == "__main__":
    DataplaneCollector.run_script()
