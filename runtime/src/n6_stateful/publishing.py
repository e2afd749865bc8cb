"""`QueuedBase`: one run's publishing, from the opened output to the last confirmation.

The method names are those of n6's own class; n6 drives an event loop underneath, here `run` is a plain call
that returns only when everything has arrived.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from n6_stateful.errors import CollectorError, NothingNew
from n6_stateful.interruption import raise_if_interrupted
from n6_stateful.message import Exchange, Message, checked_properties, short_string
from n6_stateful.message_id import MessageIds
from n6_stateful.progress import Progress

if TYPE_CHECKING:
    from n6_stateful.output.base import Output

LOGGER = logging.getLogger(__name__)


class QueuedBase:
    """Publishes to the configured output.

    Attributes:
        output_queue: the exchange to publish to, `{"exchange": name, "exchange_type": type}`, or a list of
            such; the first one is the default of `publish_output`.
        basic_prop_kwargs: message properties that every message gets.
        state_generation: id of the state that this run started from, or saved last; empty if there is no
            state yet. A collector that keeps no state has one of its own, until a run has ended well.
        state_generations: the ids of all states that a later run may start from, that one first; empty if it
            may be any.
        published_count: how many messages this object has handed to the output.
        published_bytes: how many bytes their bodies have.
        output_where: what a person calls the output; empty before `run`.
        delivery_problem: what a person must see to, although everything is safe; None if nothing.
    """

    output_queue: dict[str, str] | list[dict[str, str]] | None = None
    basic_prop_kwargs: dict[str, Any] = {"delivery_mode": 2}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._begin_generation()
        self.published_count = 0
        self.published_bytes = 0
        self.output_where = ""
        self.delivery_problem: str | None = None
        self._progress = Progress()
        self._message_ids = MessageIds()
        self._output: Output | None = None
        self._exchanges: list[Exchange] = []
        self._runner = (0, 0)
        self._is_checked = False
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

    def check_before_publishing(self) -> None:
        """Called once, before a run's first message goes out; what it raises ends the run."""

    def get_output_owner(self) -> str:
        """The name under which an output keeps what it must remember about this collector."""
        return type(self).__name__

    def check_before_opening(self) -> None:
        """Called before a run opens its output; raise if it must not."""

    # What n6 calls

    def run(self) -> None:
        """Open the output, publish, and return when every message has arrived and the output is closed.

        Raises:
            PublishError: the output could not be opened, or did not take everything.
            Exception: whatever `start_publishing` raises.

        In either case the output is given up at once, so that a `save_state` after this call is not reached.
        """
        raise_if_interrupted()
        self._stopped = False
        self._is_checked = False
        self._message_ids = MessageIds()  # so that a run that is repeated here gives the same ids, too
        self._exchanges = self._declared_exchanges()
        self._runner = os.getpid(), threading.get_ident()
        self.check_before_opening()
        self._output = output = self.make_output()
        self.output_where = output.where
        try:
            output.open(self._exchanges, self.get_output_owner(), self.state_generations)
            LOGGER.debug("opened %s", output.where)
            try:
                self.start_publishing()
            except NothingNew as reason:
                LOGGER.info("nothing new at the source%s", f": {reason}" if reason.args else "")
            self._check_runner()
            raise_if_interrupted()
            output.close()
            self.delivery_problem = output.problem
            if self.state_generation == self._own_generation:
                self._begin_generation()
        except BaseException as exc:
            if os.getpid() != self._runner[0]:
                # To close what it shares with its parent, be it by an ordinary exit, would harm the parent.
                LOGGER.critical("a forked child came back into run(), and was ended there: %r", exc)
                os._exit(1)
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
        output.check(self._declared_exchanges())

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
    ) -> str:
        """Publish one message; only from the thread that called `run`.

        Args:
            routing_key: n6's `<source>.<channel>`, plus `.<raw_format_version_tag>` if there is one.
            body: bytes, or what has `__bytes__`.
            prop_kwargs: AMQP properties by their names, with underscores; they add to `basic_prop_kwargs`. A
                message without a `message_id` gets a stable one. What is published is what they are now.
            exchange: an exchange of `output_queue`; None means the first.

        Returns:
            The message's id.

        Raises:
            CollectorError: AMQP cannot hold it, the body is empty or not bytes, `output_queue` does not name
                the exchange, or there is no output to publish to. Nothing was sent of it.
            PublishError: the output did not take it, or an earlier message.
        """
        output = self._output
        if output is None or self._stopped:
            where = "after inner_stop()" if self._stopped else "outside run()"
            raise CollectorError(
                f"publish_output() was called {where}: call it from start_publishing(), before inner_stop()"
            )
        self._check_runner()
        raise_if_interrupted()
        body = as_body(body)
        exchange = exchange or self._exchanges[0].name
        if exchange not in [each.name for each in self._exchanges]:
            raise CollectorError(
                f"{type(self).__name__}.output_queue does not name the exchange {exchange!r}"
            )
        routing_key = short_string("routing key", routing_key)
        properties = checked_properties({**self.basic_prop_kwargs, **(prop_kwargs or {})})
        if not self._is_checked:
            self.check_before_publishing()
            self._is_checked = True
        generation = self.state_generation
        message_id: str = properties.get("message_id") or self._message_ids.next(
            exchange, routing_key, generation, body
        )
        properties["message_id"] = message_id
        output.publish(Message(exchange, routing_key, body, properties, generation))
        self.published_count += 1
        self.published_bytes += len(body)
        self._progress.show(self.published_count, self.published_bytes)
        return message_id

    def flush_output(self) -> None:
        """Return when everything published so far has durably arrived; `save_state` calls it first.

        Raises:
            CollectorError: another thread or process than the one that called `run` calls it.
            PublishError: something did not arrive.
        """
        raise_if_interrupted()
        if self._output is not None:
            self._check_runner()
            self._output.flush()

    def _begin_generation(self) -> None:
        self.state_generation = self._own_generation = os.urandom(16).hex()
        self.state_generations: tuple[str, ...] = (self.state_generation,)

    def _check_runner(self) -> None:
        if self._runner != (os.getpid(), threading.get_ident()):
            raise CollectorError("only the thread that called run() may publish, in its own process")

    def _declared_exchanges(self) -> list[Exchange]:
        declared = [self.output_queue] if isinstance(self.output_queue, dict) else self.output_queue
        if not declared:
            raise CollectorError(f"{type(self).__name__}.output_queue names no exchange to publish to")
        names = [short_string("exchange", each["exchange"]) for each in declared]
        kinds = [short_string("exchange type", each.get("exchange_type", "topic")) for each in declared]
        return [Exchange(*each) for each in zip(names, kinds, strict=True)]


def as_body(body: Any) -> bytes:
    """`body` as bytes, copied only where it is not bytes yet.

    Raises:
        CollectorError: it cannot be bytes, or is empty.
    """
    if not (isinstance(body, bytes | bytearray | memoryview) or hasattr(body, "__bytes__")):
        mend = ": encode it first, for instance body.encode('utf-8')" if isinstance(body, str) else ""
        raise CollectorError(f"a message body must be bytes, not {type(body).__name__}{mend}")
    taken = body if isinstance(body, bytes) else bytes(body)
    if not taken:
        raise CollectorError("a message body is empty; raise NothingNew where there is nothing to publish")
    return taken
