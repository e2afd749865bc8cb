"""`QueuedBase`: one run's publishing. Collect, commit, deliver.

    collect    publish_output() puts a message into a buffer
    commit     save_state() or flush_output() makes what is in the buffer durable in the journal's outbox
    deliver    the outbox goes to RabbitMQ

The method names are those of n6's own class; n6 drives an event loop underneath, here `run` is a plain call.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from math import inf
from pathlib import Path
from threading import get_ident
from typing import Any

from n6_stateful import settings
from n6_stateful.errors import CollectorError, N6StatefulError, NothingNew, PublishError, StateError
from n6_stateful.interruption import raise_if_interrupted
from n6_stateful.journal import Journal, configured_journal
from n6_stateful.message import Exchange, Message, MessageIds, as_body, checked_properties, short_string
from n6_stateful.progress import Progress

LOGGER = logging.getLogger(__name__)


class WithJournal:
    """What publishing and the state share: the journal, and the hooks by which one calls the other.

    Attributes:
        is_stateful: whether what is published is committed by `save_state`.
    """

    config_full: Mapping[str, Any] = {}
    is_stateful = False

    @cached_property
    def journal(self) -> Journal:
        """The collector's memory."""
        return configured_journal(self.config_full.get("journal", {}), self.journal_path())

    def journal_path(self) -> Path:
        """Where the journal is, if it is a file; its stem is the journal's name."""
        raise NotImplementedError

    def outbox_is_destination(self) -> bool:
        """Whether messages are to stay in the outbox (`url = outbox:`)."""
        return False

    def deliver_committed(self) -> None:
        """Called after a commit: deliver, if this is the time for it."""
        self.after_delivery()

    def after_delivery(self) -> None:
        """Called when a delivery has ended."""

    def before_end(self) -> None:
        """Called when the outermost call has returned normally, before the last commit."""


class QueuedBase(WithJournal):
    """Publishes through its journal.

    Attributes:
        output_queue: the exchange to publish to, `{"exchange": name, "exchange_type": type}`, or a list of
            such; the first one is the default of `publish_output`.
        basic_prop_kwargs: message properties that every message gets.
        deliver_every: seconds; a commit in the middle of a run delivers if the last attempt is older.
        base_id: what message ids are derived from, beside the messages: the state that the run started from,
            or saved last. Without a state it is random in each run, so that a repeat has another id.
        published_count: how many messages this object has put into the buffer.
        published_bytes: how many bytes their bodies have.
        delivered_count: how many messages the broker has confirmed, those of earlier runs included.
    """

    output_queue: dict[str, str] | list[dict[str, str]] | None = None
    basic_prop_kwargs: dict[str, Any] = {"delivery_mode": 2}
    deliver_every = 60.0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.base_id = self._random_id = ""
        self.published_count = self.published_bytes = self.delivered_count = 0
        self._in_call = self._publishing = False
        self._to_deliver = True  # whether there was a commit since the last attempt
        self._last_attempt = -inf
        self._undelivered: PublishError | None = None
        self._progress = Progress()

    # What a subclass provides

    def send(self, journal: Journal) -> int:
        """Deliver what waits in the outbox; the number of messages delivered.

        Raises:
            PublishError: something still waits.
        """
        raise NotImplementedError

    def start_publishing(self) -> None:
        """Publish what there is to publish: any number of `publish_output` calls, then `inner_stop`.

        Raise `NothingNew` when there is nothing, or nothing more.
        """

    def open_journal(self) -> Journal:
        """The journal, ready for commits.

        Raises:
            StateError: it cannot be used; or it is in a database, and messages wait in one in a file.
        """
        self.journal.open()
        beside = configured_journal({}, self.journal_path())
        if not self.journal.is_file and (waiting := beside.backlog().messages):
            raise StateError(
                f"{beside.where}: {waiting} messages wait there; nothing was published; deliver them first, "
                "with `outbox deliver` and without the `url` in [journal]"
            )
        return self.journal

    def journal_opened(self) -> None:
        """Called at the beginning of the outermost call."""

    # What n6 calls

    @contextmanager
    def outermost_call(self) -> Iterator[None]:
        """What surrounds a whole run: at its beginning it delivers what earlier runs have left, at its end it
        commits what is in the buffer and delivers. Within another one it does nothing.

        Raises:
            PublishError: at the end, if not everything was delivered; it waits in the outbox.
        """
        if self._in_call or settings.current().dry_run:
            yield
            return
        raise_if_interrupted()
        self._in_call = self._to_deliver = True
        try:
            self.open_journal().discard()  # what an earlier call of this object did not commit
            self.journal_opened()
            self._deliver()
            try:
                yield
            except (Exception, SystemExit):  # which is the error to report; after an interruption all waits
                try:
                    self._deliver_the_rest()
                except N6StatefulError as exc:
                    LOGGER.warning("%s", exc)
                raise
            self.before_end()
            self._commit()
            self._deliver_the_rest()
        finally:
            self._in_call = False

    def run(self) -> None:
        """Publish what `start_publishing` publishes.

        Called by itself, outside `run_handling`, it is an `outermost_call` if the collector keeps no state;
        one with a state commits and delivers in `save_state`.

        Raises:
            PublishError: as `outermost_call` raises it.
            Exception: whatever `start_publishing` raises.
        """
        raise_if_interrupted()
        with nullcontext() if self.is_stateful else self.outermost_call():
            self._publish()

    def _publish(self) -> None:
        self._exchanges = self._declared_exchanges()
        self._message_ids = MessageIds()  # so that a run that is repeated here gives the same ids, too
        self._thread = get_ident()
        if not self.is_stateful and self.base_id == self._random_id:
            self.base_id = self._random_id = os.urandom(16).hex()
        self._publishing = True
        try:
            self.start_publishing()
        except NothingNew as reason:
            LOGGER.info("nothing new at the source%s", f": {reason}" if reason.args else "")
        finally:
            self._publishing = False
            self._progress.end()

    def inner_stop(self) -> None:
        """Declare that nothing more will be published in this run."""
        self._publishing = False

    def stop(self) -> None:
        """Clean up after an interrupted `run()`."""
        self.inner_stop()

    def publish_output(
        self,
        routing_key: str,
        body: Any,
        prop_kwargs: dict[str, Any] | None = None,
        exchange: str | None = None,
    ) -> str:
        """Put one message into the buffer; only from the thread that called `run`.

        Args:
            routing_key: n6's `<source>.<channel>`, plus `.<raw_format_version_tag>` if there is one.
            body: bytes, or what has `__bytes__`.
            prop_kwargs: AMQP properties by their names, with underscores; they add to `basic_prop_kwargs`. A
                message without a `message_id` gets a stable one.
            exchange: an exchange of `output_queue`; None means the first.

        Returns:
            The message's id.

        Raises:
            CollectorError: AMQP or the journal cannot hold it, the body is empty or not bytes, `output_queue`
                does not name the exchange, or it is called outside `start_publishing`.
            PublishError: the outbox has reached its limit.
            StateError: the buffer could not be written; nothing more is committed in this run.
        """
        if not self._publishing or not self.base_id:
            when = "in start_publishing(), before inner_stop()" if self.base_id else "after load_state()"
            raise CollectorError(f"publish_output() works only {when}; nothing was published")
        if self._thread != get_ident():
            raise CollectorError("publish_output() works only in the thread that called run()")
        body = as_body(body)
        exchange = exchange or self._exchanges[0].name
        if exchange not in [declared.name for declared in self._exchanges]:
            raise CollectorError(
                f"{type(self).__name__}.output_queue does not name the exchange {exchange!r}"
            )
        routing_key = short_string("routing key", routing_key)
        properties = checked_properties({**self.basic_prop_kwargs, **(prop_kwargs or {})})
        if not properties.get("message_id"):
            properties["message_id"] = self._message_ids.next(exchange, routing_key, self.base_id, body)
        message = Message(exchange, routing_key, body, properties)
        if settings.current().dry_run:
            self.show_message(message)
        else:
            self.journal.put(message)
        self.published_count += 1
        self.published_bytes += len(body)
        self._progress.show(f"collected {self.published_count:,} messages")
        return str(properties["message_id"])

    def show_message(self, message: Message) -> None:
        """Called for each message of a dry run."""

    def flush_output(self) -> None:
        """Commit what is in the buffer; when it returns, that is durable and will be delivered.

        Outside `start_publishing` it also delivers, as it does inside if the last attempt was more than
        `deliver_every` seconds ago. A delivery that fails is a warning.

        Raises:
            StateError: nothing of the buffer was committed.
        """
        raise_if_interrupted()
        if not settings.current().dry_run:
            self._commit()
            self.deliver_committed()

    def deliver_committed(self) -> None:
        """Called after a commit: deliver, if this is the time for it."""
        self._to_deliver = True
        if not self._publishing or time.monotonic() - self._last_attempt > self.deliver_every:
            self._deliver()
            if self._undelivered and (self._publishing or not self._in_call):  # else it will be raised
                LOGGER.warning("%s", self._undelivered)

    # How

    def _commit(self) -> None:
        if self.journal.buffered:
            self.journal.commit()
            self._to_deliver = True

    def _deliver(self) -> None:
        """Deliver, if anything was committed since the last attempt; a failure is kept for the end."""
        raise_if_interrupted()
        if not self._to_deliver:
            return
        self._to_deliver, self._undelivered = False, None
        try:
            if not self.outbox_is_destination():
                self._send()
        except PublishError as exc:
            self.delivered_count += exc.delivered
            self._undelivered = exc
        self._last_attempt = time.monotonic()
        self.after_delivery()

    def _deliver_the_rest(self) -> None:
        self._deliver()
        if self._undelivered:
            raise self._undelivered

    def _send(self) -> None:
        # Runs without a state may be many at once: the one that gets the lock delivers for all. Afterwards it
        # looks once more, since others that found it locked may have committed meanwhile.
        journal, had_lock = self.journal, self.journal.is_locked
        while journal.backlog().messages:
            if not journal.try_lock():
                LOGGER.warning("another process is delivering the outbox; it sends these messages, too")
                return
            try:
                self.delivered_count += self.send(journal)
            finally:
                if not had_lock:
                    journal.unlock()

    def _declared_exchanges(self) -> list[Exchange]:
        declared = [self.output_queue] if isinstance(self.output_queue, dict) else self.output_queue
        if not declared:
            raise CollectorError(f"{type(self).__name__}.output_queue names no exchange to publish to")
        texts = [(item["exchange"], item.get("exchange_type", "topic")) for item in declared]
        return [Exchange(*(short_string("exchange", text) for text in pair)) for pair in texts]
