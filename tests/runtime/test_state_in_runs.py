"""The state and a run's publishing together: what is proven first, what is refused, what is worth keeping."""

from __future__ import annotations

import io
import logging
import os
import pickle
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import (
    BaseCollector,
    CollectorError,
    CollectorWithStateMixin,
    NothingNew,
    StateError,
    settings,
)
from n6_stateful.state.pickles import is_of_py2
from n6_stateful.testing import MemoryOutput
from tests.runtime.conftest import InForce

CONFIG = "[feed]\nsource = provider\ncache_dir = {tmp}/cache\n"
NAME = "provider.channel.Feed.pickle"


class Feed(CollectorWithStateMixin, BaseCollector):
    """Its source is `bodies`; each is taken once."""

    type = "stream"
    config_spec = "[feed]\nsource :: str\ncache_dir :: path\n"
    bodies: tuple[bytes, ...] = ()

    def make_default_state(self) -> dict[str, Any]:
        return {"taken": 0}

    def run(self) -> None:
        self.state = self.load_state()
        super().run()
        self.save_state(self.state)
        self.close_state()

    def start_publishing(self) -> None:
        new = self.bodies[self.state["taken"] :]
        if not new:
            raise NothingNew
        for body in new:
            self.publish_output(*self.get_output_components(body=body))
        self.state["taken"] = len(self.bodies)

    def get_source_channel(self, **processed_data: Any) -> str:
        return "channel"

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
        return processed_data["body"]


@pytest.fixture(autouse=True)
def configured(in_force: InForce) -> Iterator[None]:
    with in_force(CONFIG):
        yield


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def feed(*bodies: bytes, kind: type[Feed] = Feed) -> Feed:
    collector = kind()
    collector.bodies = bodies
    return collector


def kept(cache_dir: Path) -> list[Any]:
    """The current state and the one before."""
    paths = (cache_dir / NAME, cache_dir / f"{NAME}.previous")
    return [pickle.loads(path.read_bytes())["taken"] for path in paths if path.exists()]


class TestProof:
    """A run that cannot save publishes nothing."""

    @pytest.fixture
    def cache_dir(self, cache_dir: Path) -> Iterator[Path]:
        cache_dir.mkdir(0o700)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", cache_dir]).returncode:
            pytest.skip("needs root to mount a file system")
        yield cache_dir
        subprocess.run(["umount", cache_dir], check=True)

    def test_full_disk(self, cache_dir: Path, memory: MemoryOutput) -> None:
        """On a full disk each run ends with exit code 74 before it publishes; with room it goes on."""
        feed(b"one").run()
        ids = [message.properties["message_id"] for message in memory.delivered]
        with suppress(OSError), (cache_dir / "fill").open("wb", buffering=0) as fill:
            while True:
                fill.write(bytes(4096))
        for count in range(3):
            growing = feed(*(b"%d" % number for number in range(2 + count)))
            with pytest.raises(StateError, match=r"nothing was published: .*No space left") as told:
                growing.run()
            growing.close_state()
            assert told.value.exit_code == 74
        assert [message.properties["message_id"] for message in memory.delivered] == ids
        (cache_dir / "fill").unlink()
        feed(b"one", b"two").run()
        assert [message.body for message in memory.delivered] == [b"one", b"two"]


class TestOrder:
    """Ids and the spool's memory hang on the generations, so those must be known first."""

    def test_load_in_start_publishing(self, memory: MemoryOutput) -> None:
        """A run that has loaded no state is refused before its output is opened."""

        class Late(Feed):
            def run(self) -> None:
                super(Feed, self).run()

            def start_publishing(self) -> None:
                self.state = self.load_state()
                super().start_publishing()

        with pytest.raises(CollectorError, match=r"run\(\) was called before load_state\(\), nothing"):
            feed(b"one", kind=Late).run()
        assert not memory.delivered

    def test_save_without_load(self, cache_dir: Path) -> None:
        """What was never loaded is not overwritten."""
        with pytest.raises(CollectorError, match=r"save_state\(\) was called before load_state\(\)"):
            feed().save_state({"taken": 5})
        assert not (cache_dir / NAME).exists()

    def test_load_again(self, memory: MemoryOutput) -> None:
        """To load again while publishing is no mistake: it is the same generation."""

        class Twice(Feed):
            def start_publishing(self) -> None:
                self.load_state()
                super().start_publishing()

        feed(b"one", kind=type("Feed", (Twice,), {})).run()
        assert [message.body for message in memory.delivered] == [b"one"]


class TestKeeping:
    """What is kept is the state before the last run that published something."""

    def test_nothing_new(self, cache_dir: Path) -> None:
        """Runs without news are new generations, and use up none."""
        feed(b"one").run()
        feed(b"one", b"two").run()
        generations = set()
        for _ in range(3):
            collector = feed(b"one", b"two")
            collector.run()
            generations.add(collector.state_generation)
        assert len(generations) == 3
        assert kept(cache_dir) == [2, 1]
        collector = feed()
        collector.load_state()
        kept_ids = [each.id for each in collector.state_store.generations()]
        assert list(collector.state_generations) == kept_ids
        collector.close_state()
        feed(b"one", b"two", b"three").run()
        assert kept(cache_dir) == [3, 2]

    def test_only_one(self, cache_dir: Path) -> None:
        """A run without news keeps the only generation there is to fall back to."""
        for _ in range(3):
            feed(b"one").run()
            assert len(kept(cache_dir)) >= 1
        assert len(kept(cache_dir)) == 2

    def test_saves_in_the_middle(self, cache_dir: Path) -> None:
        """Each save is counted from the one before it."""

        class Paged(Feed):
            def start_publishing(self) -> None:
                for number, body in enumerate(self.bodies, 1):
                    self.publish_output(*self.get_output_components(body=body))
                    self.state["taken"] = number
                    self.save_state(self.state)

        feed(b"one", b"two", b"three", kind=type("Feed", (Paged,), {})).run()
        # The last save, at the end of the run, follows no message.
        assert kept(cache_dir) == [3, 2]

    def test_a_second_run_of_one_object(self, cache_dir: Path) -> None:
        """The count goes on from run to run."""
        collector = feed(b"one")
        collector.run()
        collector.bodies = (b"one", b"two")
        collector.run()
        assert kept(cache_dir) == [2, 1]

    def test_plain_pickle_of_n6(self, cache_dir: Path) -> None:
        """What n6 has left is kept, even if the first run has no news."""
        cache_dir.mkdir(0o700)
        (cache_dir / NAME).write_bytes(pickle.dumps({"taken": 0}))
        (cache_dir / NAME).chmod(0o600)
        feed().run()
        assert kept(cache_dir) == [0, 0]
        assert (cache_dir / f"{NAME}.previous").read_bytes() == pickle.dumps({"taken": 0})


class Unsavable(Feed):
    """Puts into its state what does not pickle, before or after it publishes."""

    before = True

    def start_publishing(self) -> None:
        if self.before:
            self.state["file"] = io.StringIO
            self.state["lock"] = print
        self.publish_output(*self.get_output_components(body=b"one"))
        self.state["lock"] = print


Unsavable.__name__ = "Feed"


class TestPickling:
    """A state that cannot be saved is found early."""

    def test_before_the_first_message(self, memory: MemoryOutput, cache_dir: Path) -> None:
        """Where the state in hand has it already, nothing is published."""
        with pytest.raises(StateError, match=r"the state cannot be saved.*is what it was"):
            feed(kind=Unsavable).run()
        assert not memory.delivered
        assert not (cache_dir / NAME).exists()

    def test_once_a_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many messages follow: states may be large."""
        tried = []
        monkeypatch.setattr(Feed, "_dump", lambda self, state, file=None: tried.append(file))
        collector = feed(*[b"x"] * 50)
        collector.state = collector.load_state()
        super(Feed, collector).run()
        collector.close_state()
        assert tried == [None]

    def test_dry_run(self, cache_dir: Path) -> None:
        """A dry run finds it too, even if it comes up after publishing."""
        collector = feed(kind=Unsavable)
        collector.before = False  # type: ignore[attr-defined]
        with (
            settings.use(settings.Settings(settings.current().config_paths, dry_run=True)),
            pytest.raises(StateError, match="the state cannot be saved"),
        ):
            collector.run()
        assert not (cache_dir / NAME).exists()


def test_log_of_many_saves(caplog: pytest.LogCaptureFixture) -> None:
    """At the usual level a save says nothing: the closing line tells the generation."""
    caplog.set_level(logging.INFO)
    collector = feed()
    collector.load_state()
    caplog.clear()
    for number in range(3):
        collector.save_state({"taken": number})
    collector.close_state()
    assert not caplog.records


class TestPython2:
    """Whose pickle it is, the protocol alone does not tell."""

    @pytest.mark.parametrize("protocol", [0, 1, 2])
    def test_bytes_of_python_3(self, protocol: int, cache_dir: Path) -> None:
        """A pickle of an old protocol that Python 3 wrote keeps its bytes."""
        state = {"taken": 0, "raw": b"\xff", "empty": b""}
        cache_dir.mkdir(0o700)
        (cache_dir / NAME).write_bytes(pickle.dumps(state, protocol))
        (cache_dir / NAME).chmod(0o600)
        collector = feed()
        assert collector.load_state() == state
        collector.close_state()

    @pytest.mark.parametrize(
        "data", [b"", b"\x80", b"\x80\x02", b"garbage", os.urandom(50)], ids=["0", "1", "2", "text", "any"]
    )
    def test_garbage(self, data: bytes) -> None:
        """Asked of garbage it answers, and leaves the file where it was."""
        file = io.BytesIO(b"abc" + data)
        file.seek(3)
        assert is_of_py2(file) in (True, False)
        assert file.tell() == 3
