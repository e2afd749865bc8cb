"""`spool list`, `show`, `forward` and `drop`, from outside."""

from __future__ import annotations

import json
import shutil

import pytest

from n6_stateful.output.forwarding import forward
from n6_stateful.output.spool import Spool
from tests.runtime.test_command import Host, one_clear_error
from tests.runtime.test_command import host as host  # the fixture
from tests.runtime.test_forwarding import PickyBroker
from tests.runtime.test_spool import message, put


class TestList:
    """`spool list`."""

    def test_lines(self, host: Host) -> None:
        """A line for each message, and the sum."""
        host.run()
        lines = host.run("spool", "list").stdout.splitlines()
        assert len(lines) == 3
        assert all("my-provider.lines  3 bytes" in line for line in lines[:2])
        assert lines[2].startswith("2 messages (6 bytes) in the spool")
        assert "1 of them not shown" in host.run("spool", "list", "--limit", "1").stdout

    def test_refused(self, host: Host) -> None:
        """What is set apart shows the reason, for people and for programs."""
        spool = Spool(host.directory / "spool")
        put(spool, message(1), message(2))
        forward(spool, PickyBroker(returns=[2, 1]))
        assert host.run("spool", "list").stdout.count("  set apart: returned\n") == 2
        first, _ = map(json.loads, host.run("spool", "list", "--json").stdout.splitlines())
        assert (first["refused"], first["properties"]["headers"]) == ("returned", {"a": 1})

    @pytest.mark.parametrize("limit", ["0", "-1", "many", "9" * 5000])
    def test_wrong_limit(self, limit: str, host: Host) -> None:
        """A limit that is none is wrong usage."""
        assert host.run("spool", "list", "--limit", limit).returncode == 2

    def test_large_limit(self, host: Host) -> None:
        """A limit beyond all measure is no limit."""
        host.run()
        done = host.run("spool", "list", "--limit", str(10**20))
        assert "2 messages" in done.stdout, done.stderr

    def test_none(self, host: Host) -> None:
        """A spool that is not there lists nothing, and is not made."""
        assert host.run("spool", "list").stdout.startswith("0 messages (0 bytes)")
        assert not (host.directory / "spool").exists()


class TestShow:
    """`spool show`."""

    def test_body(self, host: Host) -> None:
        """It writes the body as it is."""
        host.run()
        message_id = host.run("spool", "list").stdout.split()[1]
        done = host.run("spool", "show", message_id[:8])
        assert done.stdout == "one"
        assert message_id in done.stderr

    @pytest.mark.parametrize("message_id", ["zzz", "\udcff", "ż", ""])
    def test_none(self, message_id: str, host: Host) -> None:
        """What is no id of a message is one clear error."""
        host.run()
        one_clear_error(host.run("spool", "show", message_id), 1, "no message with the id", "in the spool")

    def test_several(self, host: Host) -> None:
        """What several ids begin with is told as such; an id of its own that another begins with is one."""
        put(
            Spool(host.directory / "spool"),
            *(message(1, properties={"message_id": each}) for each in ("a1", "a12")),
        )
        one_clear_error(host.run("spool", "show", "a"), 1, "more than one message", "begins with 'a'")
        assert '"message_id": "a1"' in host.run("spool", "show", "a1").stderr


class TestDrop:
    """`spool drop`."""

    def test_gone(self, host: Host) -> None:
        """What is dropped is gone, and a run that is repeated does not bring it back."""
        host.run()
        message_id = host.run("spool", "list").stdout.split()[1]
        one_clear_error(host.run("spool", "drop", message_id), 1, "nothing was changed: give --yes")
        assert "2 messages" in host.run("spool", "list").stdout
        assert message_id in host.run("spool", "drop", message_id, "--yes").stdout
        assert message_id not in host.run("spool", "list").stdout
        again = host.run("spool", "drop", message_id, "--yes")
        one_clear_error(again, 1, "no message with the id", message_id)
        shutil.rmtree(host.directory / "cache")  # as if the run had been killed before it saved its state
        host.run()
        left = host.run("spool", "list").stdout
        assert "1 message (3 bytes)" in left
        assert message_id not in left

    @pytest.mark.parametrize("message_id", ["", "*", "?", "zzz", "%", "_"])
    def test_named(self, message_id: str, host: Host) -> None:
        """No message is dropped but one that is named."""
        host.feed.write_text("one\n")
        host.run()
        one_clear_error(host.run("spool", "drop", message_id, "--yes"), 1, "no message with the id")
        assert host.run("spool", "list").stdout.count("my-provider.lines") == 1


class TestForward:
    """`spool forward`, and runs with `spool_when_down`."""

    def test_where(self, host: Host) -> None:
        """What is given to it is not ignored."""
        host.run()
        one_clear_error(host.run("spool", "forward", "--output", "amqp://127.0.0.1:9/"), 78, "--to")
        other = f"spool:{host.directory}/other"
        one_clear_error(host.run("spool", "forward", "--to", other), 78, "--to names")
        one_clear_error(host.run("spool", "forward"), 78, "--to amqp://")

    @pytest.mark.parametrize("is_gone", [True, False])
    def test_lost(self, is_gone: bool, host: Host) -> None:
        """A run with a state that finds no spool warns that what waited may be gone; a first run does not."""
        told = "is new; if there was one before, what waited in it is gone"
        assert told not in host.run().stderr
        if is_gone:
            (host.directory / "spool").unlink()
        assert (told in host.run().stderr) is is_gone

    @pytest.mark.parametrize("path", ["spool:relative", "spool:~no-such-user/x"])
    def test_path(self, path: str, host: Host) -> None:
        """A spool's path is absolute, or begins with the ~ of somebody who exists."""
        one_clear_error(host.run("spool", "forward", "--output", path), 78, path.removeprefix("spool:"))

    def test_down(self, host: Host) -> None:
        """What a dead broker does not take is kept, and the run ends with 0."""
        host.change_config(
            f"url = spool:{host.directory}/spool",
            f"url = amqp://127.0.0.1:9/\nspool_when_down = {host.directory}/spool",
        )
        done = host.run()
        assert done.returncode == 0, done.stderr
        assert "WARNING" in done.stderr
        assert "2 messages (6 bytes) there" in done.stderr
        assert "{'taken': 2}" in host.run("state", "show").stdout
        assert "2 messages (6 bytes) in the spool" in host.run("spool", "list").stdout
        one_clear_error(host.run("spool", "forward"), 69, "127.0.0.1:9")
        assert "2 messages" in host.run("spool", "list").stdout
