"""A run that dies anywhere: nothing is lost, copies share an id, the state file is never ahead."""

from __future__ import annotations

import pickle
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from n6_stateful.command import main
from n6_stateful.errors import StateLockedError
from tests.delivery.conftest import RabbitMQ, Received
from tests.stories.crash_points import CRASHED, KINDS, OF_STATE_FILE, run_in_child
from tests.stories.shapes import SHAPES


class Host:
    """A machine with one collector, whose source grows by two records before each run."""

    def __init__(self, directory: Path, shape: str, broker: RabbitMQ, journal_url: str = "") -> None:
        self.shape, self.broker, self.cache = shape, broker, directory / "cache"
        self.lines: list[bytes] = []
        self.arrived: list[Received] = []
        self.mails: list[bytes] = []
        self._feed, self._config = directory / "feed", directory / "60_growing.conf"
        self._config.write_text(
            f"[growing]\nsource = my-{uuid.uuid4().hex[:8]}\ncache_dir = {self.cache}\nurl = {self._feed}\n"
            f"exchange = {broker.exchange}\n[output]\nurl = {broker.url}\n[journal]\nurl = {journal_url}\n"
        )

    def grow(self) -> None:
        for _ in range(2):
            self.lines.append(b"2026-01-01T00:00:%02d record %d" % divmod(len(self.lines), 10))
        self._feed.write_bytes(b"\n".join(self.lines))
        self.mails.append(b"\n".join(self.lines))

    def run(self, kind: str = "", crash_at: int = 0) -> bool:
        """Run it once; whether it was ended before that point."""
        arguments = ["--config", str(self._config), "--log-level", "error"]
        code = StateLockedError.exit_code
        for _ in range(100):  # a server may need a moment to notice that the run before has ended
            if code == StateLockedError.exit_code:
                code = run_in_child(lambda: main(SHAPES[self.shape], arguments), kind, crash_at)
        assert code in (0, CRASHED), f"ended with {code}"
        self.arrived += self.broker.receive()
        self.check_state_file()
        return code == CRASHED

    def check_state_file(self) -> None:
        """The state file is never ahead of what has arrived."""
        for path in self.cache.glob("*.pickle"):
            state: Any = pickle.loads(path.read_bytes())
            have = b"\n".join(message.body for message in self.arrived)
            if self.shape in ("guide", "saving", "pages"):
                for line in self.lines[: state["collected" if "collected" in state else "cursor"]]:
                    assert line in have
            elif self.shape == "rows" and state["newest_row_time"]:
                for line in self.lines:
                    assert line in have or line[:19].decode() >= str(state["newest_row_time"])

    def judge(self) -> None:
        """Nothing is lost, and a consumer that drops copies by id has each record once; of lists, which
        replace one another, it has the last one."""
        bodies = {message.properties["message_id"]: message.body for message in self.arrived}
        assert len({(m.properties["message_id"], m.body) for m in self.arrived}) == len(bodies)
        if self.shape == "email":
            assert set(bodies.values()) == set(self.mails)
        elif self.shape == "list":
            assert self.arrived[-1].body == b"\n".join(self.lines)
            assert len(set(bodies.values())) == len(bodies)
        else:
            records = [line for body in bodies.values() for line in body.split(b"\n")]
            assert Counter(records) == Counter(self.lines)


@pytest.fixture
def bound(broker: RabbitMQ) -> RabbitMQ:
    broker.bind()
    return broker


def crash_everywhere(host: Host, step: int = 1) -> None:
    """End runs before their n-th point of each kind, each time followed by a run that ends well, until there
    is no such point. Fails if a kind is never reached."""
    host.grow()
    host.run()
    has_file = list(host.cache.glob("*.pickle"))
    for kind in KINDS if has_file else [kind for kind in KINDS if kind not in OF_STATE_FILE]:
        for crash_at in range(0, 10_000, step):
            host.grow()
            has_crashed = host.run(kind, crash_at)
            host.run()
            if not has_crashed:
                assert crash_at, f"never reached: {kind}"
                break
    host.judge()


@pytest.mark.parametrize("shape", SHAPES)
def test_sqlite(shape: str, bound: RabbitMQ, tmp_path: Path) -> None:
    """With the journal in a file, a run may die before any statement, commit, send, confirmation, deletion,
    fsync and rename."""
    crash_everywhere(Host(tmp_path, shape, bound))


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.sweep
def test_servers(
    shape: str, engine: str, bound: RabbitMQ, tmp_path: Path, shared_database: Callable[[str], str]
) -> None:
    """So it may with the journal in a database."""
    crash_everywhere(Host(tmp_path, shape, bound, shared_database(engine)))


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_servers_sample(
    engine: str, bound: RabbitMQ, tmp_path: Path, shared_database: Callable[[str], str]
) -> None:
    """A sample of that: every seventh point, one shape."""
    crash_everywhere(Host(tmp_path, "saving", bound, shared_database(engine)), step=7)
