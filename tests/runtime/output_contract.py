"""What every output owes. An output's own test file derives a class from `OutputContract` and gives it two
fixtures: `make_output`, and `arrived` by which it is seen what has arrived."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from n6_stateful.message import Exchange, Message
from n6_stateful.output.base import Output

MakeOutput = Callable[[], Output]
Arrived = Callable[[], list[tuple[str, bytes]]]


def message_to(exchange: str, number: int) -> Message:
    """A message with that number as its id and body."""
    properties = {"message_id": f"{number:032x}", "delivery_mode": 2, "type": "stream", "timestamp": 1}
    return Message(exchange, "my-provider.lines", b"%d" % number, properties, "g1")


def expected(*numbers: int) -> list[tuple[str, bytes]]:
    """The ids and bodies of those messages."""
    return [(f"{number:032x}", b"%d" % number) for number in numbers]


class OutputContract:
    """The promises of `n6_stateful.output.base.Output`."""

    @pytest.fixture
    def make_output(self) -> MakeOutput:
        """Makes one more output to one and the same place."""
        raise NotImplementedError

    @pytest.fixture
    def arrived(self) -> Arrived:
        """The ids and bodies that have arrived there, in their order; asked once a test."""
        raise NotImplementedError

    @pytest.fixture
    def exchange(self) -> str:
        """The name of the exchange."""
        return "raw"

    def test_flushed_and_closed(self, make_output: MakeOutput, arrived: Arrived, exchange: str) -> None:
        """What was published has arrived, in order, once `flush` or `close` returns."""
        output = make_output()
        output.open([Exchange(exchange, "topic")], "owner", ("g1",))
        for number in (1, 2, 3):
            output.publish(message_to(exchange, number))
        output.flush()
        output.publish(message_to(exchange, 4))
        output.close()
        assert output.problem is None
        assert arrived() == expected(1, 2, 3, 4)

    def test_aborted(self, make_output: MakeOutput, arrived: Arrived, exchange: str) -> None:
        """`abort` takes nothing back that was flushed; then the same output, or another, goes on."""
        output = make_output()
        output.open([Exchange(exchange, "topic")], "owner", ("g1",))
        output.publish(message_to(exchange, 1))
        output.flush()
        output.abort()
        for number, each in enumerate((output, make_output()), 2):
            each.open([Exchange(exchange, "topic")], "owner", ("g1",))
            each.publish(message_to(exchange, number))
            each.close()
        assert arrived() == expected(1, 2, 3)

    def test_abort_any_time(self, make_output: MakeOutput, exchange: str) -> None:
        """`abort` raises nothing before `open`, after `close`, or a second time."""
        output = make_output()
        output.abort()
        output.open([Exchange(exchange, "topic")], "owner", ("g1",))
        output.close()
        output.abort()
        output.abort()

    def test_nothing(self, make_output: MakeOutput, arrived: Arrived, exchange: str) -> None:
        """A `check`, also where there was nothing yet, and a run without a message leave none."""
        make_output().check([Exchange(exchange, "topic")])
        output = make_output()
        output.open([Exchange(exchange, "topic")], "owner", ("g1",))
        output.close()
        output.check([Exchange(exchange, "topic")])
        assert arrived() == []

    def test_where(self, make_output: MakeOutput) -> None:
        """What a person calls it is one line."""
        assert make_output().where.isprintable()
