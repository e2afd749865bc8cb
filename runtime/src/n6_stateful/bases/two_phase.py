"""Collectors that first obtain everything, then publish it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from n6_stateful.bases.base import BaseCollector
from n6_stateful.bases.shape import BODY, checked
from n6_stateful.errors import NothingNew


class BaseTwoPhaseCollector(BaseCollector):
    """Obtains an input pile, then publishes a message for each input data dict generated from it.

    To be written: `obtain_input_pile`, `generate_input_data_dicts` and `get_output_data_body`.
    """

    def obtain_input_pile(self) -> Any:
        """The data that messages are made from; None if there is nothing to publish."""
        raise NotImplementedError(f"{type(self).__name__}.obtain_input_pile() is not written yet")

    def generate_input_data_dicts(self, input_pile: Any, /) -> Iterator[dict[str, Any]]:
        """The keyword arguments for `get_output_components`, one dict for each message."""
        raise NotImplementedError(f"{type(self).__name__}.generate_input_data_dicts() is not written yet")

    def run(self) -> None:
        """Obtain the input pile, then publish it."""
        try:
            pile = self.obtain_input_pile()
            if isinstance(pile, Generator):  # run its beginning now, which may raise NothingNew
                pile = chain(list(islice(pile, 1)), pile)
        except NothingNew:
            pile = None
        self._input_pile = pile
        super().run()

    def has_something_to_publish(self) -> bool:
        """Whether there is an input pile."""
        return self._input_pile is not None

    def start_publishing(self) -> None:
        """Run `publish_iteratively`, if there is an input pile."""
        if self._input_pile is None:
            raise NothingNew
        self.start_iterative_publishing()

    def publish_iteratively(self) -> Iterator[Any]:
        """Publish a message for each input data dict."""
        dicts = self.generate_input_data_dicts(self._input_pile)
        for input_data in checked("generate_input_data_dicts()", dicts, Iterable):
            checked("each step of generate_input_data_dicts()", input_data, Mapping)
            self.publish_output(*self.get_output_components(**input_data))
            yield


class BaseSimpleCollector(BaseTwoPhaseCollector):
    """Publishes one message. To be written: `obtain_data_body`."""

    def obtain_data_body(self) -> bytes | None:
        """The message's body; None if there is nothing to publish."""
        raise NotImplementedError(f"{type(self).__name__}.obtain_data_body() is not written yet")

    def obtain_input_pile(self) -> Any:
        """The input data of the one message."""
        data_body = checked("obtain_data_body()", self.obtain_data_body(), *BODY, type(None))
        return None if data_body is None else {"data_body": data_body}

    def generate_input_data_dicts(self, input_pile: Any, /) -> Iterator[dict[str, Any]]:
        """The one dict."""
        yield input_pile

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
        """The body that was obtained."""
        return processed_data["data_body"]
