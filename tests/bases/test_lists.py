"""A whole list that replaces the one before: published when it has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from n6_stateful import CollectorError, SourceError
from n6_stateful.bases.lists import BaseDownloadingListCollector
from tests.bases.http_server import Server, answer
from tests.bases.running import Running


class ListCollector(BaseDownloadingListCollector):
    source_channel = "list"
    config_spec = "[feed]\nsource :: str\ncache_dir :: path\n"


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(ListCollector, tmp_path, "url = http://127.0.0.1:9/list")


def run(running: Running, *bodies: bytes | None) -> list[bytes]:
    """What runs publish when the source gives these."""
    arrived = []
    for body in bodies:
        arrived += running.run(obtain_data_body=lambda self, body=body: body)
    return [message.body for message in arrived]


class TestList:
    """What is new."""

    def test_changed(self, running: Running) -> None:
        """A list is published when it is not the one that was published last."""
        assert run(running, b"a\n", b"a\n", None, b"a\nb\n", b"a\n") == [b"a\n", b"a\nb\n", b"a\n"]

    def test_properties(self, running: Running) -> None:
        """It is a blacklist, with its content type."""
        run(running, b"a\n")
        properties = running.arrived[0].properties
        assert (properties["type"], properties["content_type"]) == ("blacklist", "text/plain")

    def test_hook(self, running: Running) -> None:
        """A body that is text is an error that names the hook."""
        with pytest.raises(CollectorError, match=r"obtain_data_body\(\) must return bytes, not str"):
            running.run(obtain_data_body=lambda self: "a")

    @pytest.mark.parametrize("content_type", ["text/html", "text/plain"])
    def test_html(self, content_type: str, tmp_path: Path, server: Server) -> None:
        """An HTML page is not a list, whatever its content type, and is not remembered."""
        server.says["/list"] = answer(
            b"<!DOCTYPE html><p>Maintenance", f"Content-Type: {content_type}", 'ETag: "1"'
        )
        running = Running(ListCollector, tmp_path, f"url = {server.url('/list')}")
        with pytest.raises(SourceError, match="unexpected content"):
            running.run()
        server.says["/list"] = answer(b"192.0.2.1\n", f"Content-Type: {content_type}", 'ETag: "1"')
        assert [message.body for message in running.run()] == [b"192.0.2.1\n"]
