"""The examples on the page about shapes, docs/how-to/which-shape.md, do what it says of them."""

from __future__ import annotations

import io
import json
import re
import socket
import sys
import zipfile
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import SourceError
from tests.bases.http_server import Server, answer
from tests.bases.running import Running

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/which-shape.md"
CLASS = """
from __future__ import annotations
import csv, io, zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from n6_stateful import SourceError
from n6_stateful.bases import *

class MyFeedCollector({bases}):
    raw_type = "file"
    content_type = "text/csv"
    source_channel = "channel"
    config_spec = "[feed]\\nsource :: str\\ncache_dir :: path\\n{option}"

    def pick_raw_row_time(self, row: str) -> str:
        return extract_field_from_csv_row(row, 0)

    def clean_row_time(self, raw_row_time: str) -> str:
        return raw_row_time

{example}
"""
DATA_BODY = "obtain_data_body(self) -> bytes | None:\n        "


def collector(bases: str, *methods: str, option: str = "") -> Any:
    """A class with these base classes, and the examples that begin so."""
    blocks = re.findall(r"^( *)```python\n(.*?)^ *```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    examples = [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in blocks]
    chosen = [text for text in examples if text.startswith(tuple(f"    def {name}" for name in methods))]
    assert len(chosen) == len(methods)
    example = "\n".join(chosen)
    names: dict[str, Any] = {"__name__": __name__}
    exec(CLASS.format(bases=bases, option=option, example=example), names)  # noqa: S102
    return names["MyFeedCollector"]


def bodies(running: Running, **members: Any) -> list[bytes]:
    """What one run publishes."""
    return [message.body for message in running.run(**members)]


class TestRows:
    def test_header(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A header that is known is left out without a warning."""
        base, example = "BaseTimeOrderedRowsCollector", "should_row_be_used("
        running = Running(collector(base, example), tmp_path)
        orig = b"time,ip\n2026-01-01,192.0.2.1\n"
        assert bodies(running, obtain_orig_data=lambda self: orig) == [b"2026-01-01,192.0.2.1"]
        assert "left out" not in caplog.text

    def test_quoted(self, tmp_path: Path) -> None:
        """With `csv_rows`, a row over several lines is one row, and published unchanged."""
        running = Running(collector("BaseTimeOrderedRowsCollector"), tmp_path)
        orig = b'# a "comment\n\n2026-01-01,"one\n\n""row""\n2026"\n2026-01-02,two'
        for expected in ([orig.partition(b"\n\n")[2]], []):
            assert bodies(running, obtain_orig_data=lambda self: orig, csv_rows=True) == expected

    def test_half_a_row(self, server: Server, tmp_path: Path) -> None:
        """It is published once it is complete."""
        base, example = "BaseDownloadingTimeOrderedRowsCollector", "obtain_orig_data("
        running = Running(collector(base, example), tmp_path, f"url = {server.url()}")
        server.says["/feed"] = answer(b"2026-01-01,one\n2026-01-02,t")
        assert bodies(running) == [b"2026-01-01,one"]
        server.says["/feed"] = answer(b"2026-01-01,one\n2026-01-02,two\n")
        assert bodies(running) == [b"2026-01-02,two"]


class TestPages:
    def test_all(self, server: Server, tmp_path: Path) -> None:
        """The last page names no cursor, and the next run goes on; so it does when that is forgotten."""
        ids = [1, 2, 3]

        def say(request: bytes, connection: socket.socket) -> None:
            after = int(re.findall(rb"after=(\d*)", request)[0] or 0)
            newer = [{"id": number} for number in ids if number > after]
            is_forgotten = after and after not in ids
            page = {"records": newer[:2], "next": "a token" if newer[2:] else None}
            connection.sendall(answer(json.dumps(page).encode(), status="410" if is_forgotten else "200"))

        server.says["/feed"] = say
        bases = "BaseDownloadingCollector, BasePagedCollector"
        cls = collector(bases, "download_page(", "replace_cursor(", option="url :: str")
        running = Running(cls, tmp_path, f"url = {server.url()}")
        assert bodies(running) == [b'{"id":1}', b'{"id":2}', b'{"id":3}']
        assert bodies(running) == []
        ids.append(4)
        assert bodies(running) == [b'{"id":4}']
        ids[:] = [7]
        assert bodies(running) == [b'{"id":7}']

    def test_wrong(self, server: Server, tmp_path: Path) -> None:
        """An error with status 200 is an error."""
        server.says["/feed"] = answer(b'{"error": "quota exceeded"}')
        bases = "BaseDownloadingCollector, BasePagedCollector"
        cls = collector(bases, "download_page(", "replace_cursor(", option="url :: str")
        with pytest.raises(SourceError, match="quota exceeded"):
            Running(cls, tmp_path, f"url = {server.url()}").run()


class TestList:
    def test_no_list(self, server: Server, tmp_path: Path) -> None:
        """An error in JSON is refused, and a page of HTML still is."""
        cls = collector("BaseDownloadingListCollector", "is_expected(")
        running = Running(cls, tmp_path, f"url = {server.url()}")
        for wrong in (b'{"error": "quota exceeded"}', b"<html>"):
            server.says["/feed"] = answer(wrong)
            with pytest.raises(SourceError, match="unexpected content"):
                running.run()
        server.says["/feed"] = answer(b"192.0.2.1\n")
        assert bodies(running) == [b"192.0.2.1\n"]

    def test_empty(self, server: Server, tmp_path: Path) -> None:
        """With `allow_empty_body` an empty list is nothing new; otherwise it is an error."""
        running = Running(collector("BaseDownloadingListCollector"), tmp_path, f"url = {server.url()}")
        server.says["/feed"] = answer(b"")
        assert bodies(running, allow_empty_body=True) == []
        with pytest.raises(SourceError, match="empty body"):
            running.run()


class TestEmail:
    def run(self, example: str, attachment: bytes, name: str, directory: Path, **kinds: Any) -> list[bytes]:
        """What is published of a mail with that attachment."""
        message = EmailMessage()
        message["Subject"] = "Daily report"
        message.set_content("see the attachment")
        message.add_attachment(attachment, filename=name, **kinds)
        cls = collector("BaseSimpleEmailCollector", DATA_BODY + example)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(message))))
            return bodies(Running(cls, directory))

    @pytest.mark.parametrize("kind", ["text/csv", "application/octet-stream"])
    def test_csv(self, kind: str, tmp_path: Path) -> None:
        """A CSV file is published byte for byte, whatever its content type."""
        maintype, _, subtype = kind.partition("/")
        table = "name,ż\r\n".encode("latin2")
        kinds = {"maintype": maintype, "subtype": subtype}
        assert self.run('if "Daily', table, "Report.CSV", tmp_path, **kinds) == [table]
        with pytest.raises(SourceError, match="no CSV file"):
            self.run('if "Daily', table, "report.txt", tmp_path, **kinds)

    def test_zip(self, tmp_path: Path) -> None:
        """The one CSV file in a zip file is published; what is damaged, encrypted or missing is an error."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a.csv", b"a,b\n")
            archive.writestr("b", b"")
        whole = packed.getvalue()
        encrypted = whole.replace(b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\x01")
        encrypted = encrypted.replace(b"PK\x03\x04\x14\0\0", b"PK\x03\x04\x14\0\x01")
        run = partial(self.run, "packed", name="report.zip", directory=tmp_path, maintype="application")
        assert run(attachment=whole, subtype="zip") == [b"a,b\n"]
        bad = (b"no zip file", whole.replace(b"a,b", b"a;b"), whole.replace(b".csv", b".xls"), encrypted)
        for attachment in bad:
            with pytest.raises(SourceError, match="not a zip file with exactly one CSV file"):
                run(attachment=attachment, subtype="zip")
        with pytest.raises(SourceError, match="no zip file is attached"):
            self.run("packed", b"", "report.txt", tmp_path, maintype="text", subtype="plain")
