"""Everything between a run and its state is killed, frozen and cut at random, and the runs go on."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.broker.conftest import broker as broker  # the fixture
from tests.broker.private_node import until
from tests.database.attempts import Attempt
from tests.database.proxy import Proxy
from tests.database.servers import Server, end_sessions
from tests.database.site import Site

# For more, set N6_STATEFUL_ROUNDS; each of the seven stories comes once in seven rounds.
ROUNDS = int(os.environ.get("N6_STATEFUL_ROUNDS", "7"))
# Seconds for which a server or a line stands still at most; longer than a lost database is waited for. For
# minutes, set N6_STATEFUL_STANDSTILL.
LONGEST = float(os.environ.get("N6_STATEFUL_STANDSTILL", "5"))
# What may become of a run: done, state, another run in progress, killed.
ENDS = {0, 74, 75, -signal.SIGKILL}


class World:
    """A site, its line to the database, and what can happen to them."""

    def __init__(self, site: Site, server: Server, proxy: Proxy) -> None:
        self.site = site
        self.server = server
        self.proxy = proxy

    def kill_run(self, run: Attempt) -> None:
        run.send_signal(signal.SIGKILL)

    def end_sessions(self, run: Attempt) -> None:
        end_sessions(self.server.url)

    def kill_server(self, run: Attempt) -> None:
        self.server.restart()

    def freeze_server(self, run: Attempt) -> None:
        self.server.send_signal(signal.SIGSTOP)
        time.sleep(random.uniform(0, LONGEST))  # the time is what is tried here
        self.server.send_signal(signal.SIGCONT)

    def cut_line(self, run: Attempt) -> None:
        self.proxy.cut()

    def drop_line(self, run: Attempt) -> None:
        self.proxy.go_down()
        time.sleep(random.uniform(0, LONGEST))
        self.proxy.come_back()

    def freeze_run(self, run: Attempt) -> None:
        """Overtaken by another one while it is frozen."""
        run.send_signal(signal.SIGSTOP)
        end_sessions(self.server.url)
        other = self.site.begin()
        other.wait()
        run.send_signal(signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.parametrize("save_every", [0, 40])
@pytest.mark.parametrize("output", ["spool", "broker"])
def test_killed_at_random(
    tmp_path: Path, server: Server, save_every: int, output: str, request: pytest.FixtureRequest
) -> None:
    """Whatever is killed and whenever: every record is there in the end, and what came twice has one id."""
    chance = random.Random(save_every)
    with Proxy(server.url) as proxy:
        broker = request.getfixturevalue("broker") if output == "broker" else None
        site = Site(tmp_path, proxy.url, save_every, timeout=2, broker=broker)
        world = World(site, server, proxy)
        stories = [
            *(world.kill_run, world.end_sessions, world.kill_server, world.freeze_server),
            *(world.cut_line, world.drop_line, world.freeze_run),
        ]
        ends = []
        for at in range(ROUNDS):
            site.grow(200)
            runs = [site.begin(), site.begin()]
            time.sleep(chance.uniform(0, 1.5))  # the time is what is tried here
            stories[at % len(stories)](runs[0])
            ends += [each.wait() for each in runs]
            assert set(ends) <= ENDS, [each.told for each in runs]
            # What is left of a line that was dropped would hold the lock until its silence is noticed.
            proxy.cut()
        until(lambda: site.begin().wait() == 0, "a good run")
        site.run()
        state = json.loads(site.run("state", "show", "--json"))
    assert state["state"] == {"taken": len(site.lines)}
    numbers = [each["number"] for each in state["generations"]]
    assert numbers == sorted(set(numbers), reverse=True)
    assert len(set(ends)) > 1
    site.judge()
