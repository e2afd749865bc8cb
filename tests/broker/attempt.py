"""A run against a broker that breaks on the way, and what must be true of it afterwards."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from typing import Any, NamedTuple

from n6_stateful import PublishError
from n6_stateful.command import main
from tests.broker.conftest import Broker, Collecting
from tests.runtime.sample_collector import SampleCollector

Hooks = Mapping[int, Callable[[SampleCollector], object]]


class Attempt(NamedTuple):
    """One run of the command, in this process.

    Attributes:
        code: its exit code.
        told: what it printed on standard error.
        published: the ids of all that the collector's code published, or tried to.
        undelivered: the ids that the error lists.
        reasons: why, for each of those.
        seconds: how long it took.
    """

    code: int
    told: str
    published: list[str]
    undelivered: list[str]
    reasons: list[str]
    seconds: float


def attempt(collecting: Collecting, url: str, exchange: str, before: Hooks | None = None) -> Attempt:
    """Run the sample collector.

    Args:
        collecting: where it runs.
        url: the broker.
        exchange: what it publishes to.
        before: called before the message with that number is published; the number after the last
            is that of the end.
    """
    hooks = before or {}
    published: list[str] = []
    errors: list[PublishError] = []

    class Watched(SampleCollector):
        output_queue = {"exchange": exchange, "exchange_type": "topic"}

        def run(self) -> None:
            try:
                super().run()
            except PublishError as exc:
                errors.append(exc)
                raise
            finally:
                self.close_state()

        def start_publishing(self) -> None:
            super().start_publishing()
            self.reached()

        def get_output_components(self, **input_data: Any) -> tuple[str, bytes, dict[str, Any]]:
            self.reached()
            return super().get_output_components(**input_data)

        def publish_output(self, *args: Any, **kwargs: Any) -> str:
            try:
                message_id = super().publish_output(*args, **kwargs)
            except PublishError as exc:
                published.append(exc.undelivered[-1].message_id)
                raise
            published.append(message_id)
            return message_id

        def reached(self) -> None:
            if len(published) in hooks:
                hooks[len(published)](self)

    Watched.__name__ = SampleCollector.__name__
    started = time.monotonic()
    with redirect_stderr(io.StringIO()) as told:
        code = main(Watched, ["--config", str(collecting.config), "--output", url])
    seconds = time.monotonic() - started
    undelivered = [each for error in errors for each in error.undelivered]
    return Attempt(
        code,
        told.getvalue(),
        published,
        [each.message_id for each in undelivered],
        [each.reason for each in undelivered],
        seconds,
    )


def one_clear_error(done: Attempt, collecting: Collecting, *words: str) -> None:
    """The run ended with one error that a person understands, and saved nothing."""
    assert done.code == 69, done.told
    assert done.told.count("n6collector_sample: error: ") == 1, done.told
    assert "Traceback" not in done.told
    for word in words:
        assert word in done.told
    assert not collecting.state_is_saved()


def nothing_is_lost(done: Attempt, broker: Broker, collecting: Collecting) -> None:
    """What the broker has and what the error lists is all there was; the next run delivers the rest, and a
    consumer that drops by `message_id` ends with each record once, in order."""
    arrived = broker.receive()
    ids = [message.properties["message_id"] for message in arrived]
    assert set(done.published) == set(ids) | set(done.undelivered)
    listed = set(done.undelivered)
    assert [each for each in done.published if each in listed] == done.undelivered
    assert len(set(ids)) == len(ids)

    again = attempt(collecting, broker.url, broker.exchange)
    assert again.code == 0, again.told
    assert again.published[: len(done.published)] == done.published
    arrived += broker.receive()
    records = {message.properties["message_id"]: message.body for message in arrived}
    lines = collecting.feed.read_bytes().splitlines()
    assert [records.pop(message_id) for message_id in again.published] == lines
    assert not records
