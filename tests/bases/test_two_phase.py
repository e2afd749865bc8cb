"""Collectors that first obtain everything: what happens to each kind of pile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import NothingNew
from n6_stateful.bases.two_phase import BaseSimpleCollector, BaseTwoPhaseCollector
from tests.bases.running import Running


class PileCollector(BaseTwoPhaseCollector):
    source_channel = "pile"
    raw_type = "stream"
    config_spec = "[feed]\nsource :: str\ncache_dir :: path\n"
    calls: list[str] = []

    def generate_input_data_dicts(self, input_pile: Any, /) -> Iterator[dict[str, Any]]:
        for item in input_pile:
            yield {"item": item}

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> bytes:
        return bytes(processed_data["item"])

    def after_completed_publishing(self) -> None:
        self.calls.append("completed")


class SimpleCollector(BaseSimpleCollector):
    source_channel = "simple"
    raw_type = "stream"
    config_spec = "[feed]\nsource :: str\ncache_dir :: path\n"


@pytest.mark.parametrize(
    ("pile", "count", "is_completed"),
    [([b"a", b"b"], 2, True), ((body for body in [b"a", b"b"]), 2, True), ([], 0, True), (iter(()), 0, True),
     ((body for body in list[bytes]()), 0, True), (None, 0, False), (NothingNew(), 0, False)],
    ids=["list", "generator", "empty list", "empty iterator", "empty generator", "none", "nothing new"],
)  # fmt: skip
def test_completed(pile: Any, count: int, is_completed: bool, tmp_path: Path) -> None:
    """`after_completed_publishing` is called if there was a pile, even an empty one."""

    def obtain_input_pile(self: Any) -> Any:
        if isinstance(pile, Exception):
            raise pile
        return pile

    calls: list[str] = []
    arrived = Running(PileCollector, tmp_path).run(obtain_input_pile=obtain_input_pile, calls=calls)
    assert (len(arrived), calls) == (count, ["completed"] * is_completed)


def test_simple(tmp_path: Path) -> None:
    """One message, of bytes or anything convertible to bytes."""
    running = Running(SimpleCollector, tmp_path)
    for body in (b"a", bytearray(b"b"), None):
        running.run(obtain_data_body=lambda self, body=body: body)
    assert [message.body for message in running.arrived] == [b"a", b"b"]
