"""`QueuedBase`: one run's publishing, from the opened output to the last confirmation.

The method names are those of n6's own class; n6 drives an event loop underneath, here `run` is a
plain call that returns only when everything has arrived.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from n6_stateful.errors import CollectorError, NothingNew
from n6_stateful.message import Exchange, Message
from n6_stateful.message_id import MessageIds
from n6_stateful.progress import Progress

if TYPE_CHECKING:
    from n6_stateful.output.base import Output

LOGGER = logging.getLogger(__name__)


class QueuedBase:
    """Publishes to the configured output.

    Attributes:
        output_queue: the exchange to publish to, `{"exchange": name, "exchange_type": type}`, or a
            list of such; the first one is the default of `publish_output`.
        basic_prop_kwargs: message properties that every message gets.
        state_generation: id of the state that this run started from, or saved last; empty if there is
            no state yet. A collector that keeps no state has a new one at each run.
        state_generations: the ids of all states that a later run may start from, that one first.
        published_count: how many messages this run has handed to the output.
        published_bytes: how many bytes their bodies have.
        output_where: what a person calls the output; empty before `run`.
    """

    output_queue: dict[str, str] | list[dict[str, str]] | None = None
    basic_prop_kwargs: dict[str, Any] = {"delivery_mode": 2}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state_generation = os.urandom(16).hex()
        self.state_generations: tuple[str, ...] = (self.state_generation,)
        self.published_count = 0
        self.published_bytes = 0
        self.output_where = ""
        self._progress = Progress()
        self._message_ids = MessageIds()
        self._output: Output | None = None
        self._default_exchange = ""
        self._stopped = False

    # What a subclass provides

    def make_output(self) -> Output:
        """A new output, not yet opened."""
        raise NotImplementedError

    def start_publishing(self) -> None:
        """Publish what there is to publish: any number of `publish_output` calls, then `inner_stop`.

        Raise `NothingNew` when there is nothing, or nothing more.
        """
        raise NotImplementedError

    def get_output_owner(self) -> str:
        """The name under which an output keeps what it has to remember about this collector."""
        return type(self).__name__

    def check_before_opening(self) -> None:
        """Called before a run opens its output; raise if it must not."""

    # What n6 calls

    def run(self) -> None:
        """Open the output, publish, and return when every message has arrived and the output is closed.

        Raises:
            PublishError: the output could not be opened, or did not take everything.
            Exception: whatever `start_publishing` raises.

        In either case the output is given up at once, so that a `save_state` after this call is not
        reached.
        """
        self._stopped = False
        self.check_before_opening()
        exchanges = self._exchanges()
        self._default_exchange = exchanges[0].name
        self._output = output = self.make_output()
        self.output_where = output.where
        try:
            output.open(exchanges, self.get_output_owner(), self.state_generations)
            LOGGER.debug("opened %s", output.where)
            try:
                self.start_publishing()
            except NothingNew as reason:
                LOGGER.info("nothing new at the source%s", f": {reason}" if reason.args else "")
            output.close()
        except BaseException:
            output.abort()
            raise
        finally:
            self._output = None
            self._progress.end()

    def try_output(self) -> None:
        """Open the output and close it again, publishing nothing.

        Raises:
            PublishError: it cannot be opened.
        """
        output = self.make_output()
        self.output_where = output.where
        output.check(self._exchanges())

    def stop(self) -> None:
        """Give up what has not arrived and end the run; called when it is interrupted."""
        self._stopped = True
        if self._output is not None:
            self._output.abort()

    def inner_stop(self) -> None:
        """Say that nothing more will be published in this run; what was published is still waited for."""
        self._stopped = True

    def publish_output(
        self,
        routing_key: str,
        body: Any,
        prop_kwargs: dict[str, Any] | None = None,
        exchange: str | None = None,
    ) -> None:
        """Publish one message.

        Args:
            routing_key: n6's `<source>.<channel>`, plus `.<raw_format_version_tag>` if there is one.
            body: anything `bytes()` takes, a binary file or an iterable of bytes; no `str`, no `int`.
            prop_kwargs: AMQP properties by their names, with underscores; they add to `basic_prop_kwargs`. A
                message without a `message_id` gets a stable one.
            exchange: an exchange of `output_queue`; None means the first.

        Raises:
            CollectorError: the body is no bytes, or there is no output to publish to.
            PublishError: the output did not take it, or an earlier message.
        """
        output = self._output
        if output is None or self._stopped:
            raise CollectorError(
                "publish_output() was called "
                + ("after inner_stop()" if self._stopped else "outside run()")
                + ": call it from start_publishing(), before inner_stop()"
            )
        body = as_body(body)
        properties = {**self.basic_prop_kwargs, **(prop_kwargs or {})}
        if not properties.get("headers", True):
            del properties["headers"]
        generation = self.state_generation
        if not properties.get("message_id"):
            properties["message_id"] = self._message_ids.next(routing_key, generation, body)
        if exchange is None:
            exchange = self._default_exchange
        output.publish(Message(exchange, routing_key, body, properties, generation))
        self.published_count += 1
        self.published_bytes += len(body)
        self._progress.show(self.published_count, self.published_bytes)

    def flush_output(self) -> None:
        """Return when everything published so far has durably arrived; `save_state` calls it first.

        Raises:
            PublishError: something did not arrive.
        """
        if self._output is not None:
            self._output.flush()

    def _exchanges(self) -> list[Exchange]:
        declared = self.output_queue or []
        if isinstance(declared, dict):
            declared = [declared]
        if not declared:
            raise CollectorError(f"{type(self).__name__}.output_queue names no exchange to publish to")
        return [Exchange(each["exchange"], each.get("exchange_type", "topic")) for each in declared]


def as_body(body: Any) -> bytes:
    """`body` as bytes, copied only where it is not bytes yet.

    Raises:
        CollectorError: it cannot be bytes.
    """
    if isinstance(body, bytes):
        return body
    try:
        if hasattr(body, "read"):
            return as_body(body.read())
        if isinstance(body, (bytearray, memoryview)) or hasattr(body, "__bytes__"):
            return bytes(body)
        if isinstance(body, Iterable) and not isinstance(body, str):
            items = list(body)
            return bytes(items) if all(isinstance(item, int) for item in items) else b"".join(items)
    except (TypeError, ValueError) as exc:
        raise CollectorError(f"a message body has to be bytes: {exc}") from exc
    raise CollectorError(
        f"a message body has to be bytes, not {type(body).__name__}"
        + (": encode it first, for instance body.encode('utf-8')" if isinstance(body, str) else "")
    )
