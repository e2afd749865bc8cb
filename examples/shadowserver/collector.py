"""A finished collector of Shadowserver's report mails: the subject names the report, a link leads to it.

Each mail makes a message with the report's CSV; each kind of report has its own channel. In postfix a line
like this in an alias file starts the collector:

    n6-shadowserver: "|n6collector_shadowserver --config /etc/n6"
"""

from __future__ import annotations

import re
from typing import Any

from n6_stateful import SourceError
from n6_stateful.bases import BaseDownloadingCollector, BaseSimpleEmailCollector

CHANNELS = {"Accessible Telnet": "telnet", "Open Resolvers": "open-resolver", "Sinkhole Events": "sinkhole"}


class ShadowserverCollector(BaseDownloadingCollector, BaseSimpleEmailCollector):
    raw_type = "file"
    content_type = "text/csv"
    config_spec = """
        [shadowserver]
        source :: str
        ; other links in a mail are ignored
        url = https://dl.shadowserver.org/ :: str
    """

    def obtain_data_body(self) -> bytes:
        link = re.search(re.escape(self.config["url"]) + r"[\w./-]+", self.get_email_msg_text())
        if link is None:
            raise SourceError(f"the mail has no link to {self.config['url']}; nothing was published")
        return self.download(link[0])

    def get_source_channel(self, **processed_data: Any) -> str:
        report = re.search(r"Shadowserver \S+ (.+) Report", self.email_msg.get_subject() or "")
        if report is None or report[1] not in CHANNELS:
            raise SourceError(f"the subject {self.email_msg.get_subject()!r} names no report that is known")
        return CHANNELS[report[1]]


if __name__ == "__main__":
    ShadowserverCollector.run_script()
