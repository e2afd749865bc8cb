"""n6's collector classes: the template methods from input data to a message.

The names, their order and what each is given are n6's
(https://n6.readthedocs.io/guides/new_source/collectors/).
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from n6_stateful import settings
from n6_stateful.broker import Broker, configured_broker, output_specs
from n6_stateful.config import ConfigFiles, ConfigSection, load, section_names
from n6_stateful.errors import CollectorError, ConfigError
from n6_stateful.journal import JOURNAL_SPEC, Journal
from n6_stateful.message import as_body
from n6_stateful.publishing import QueuedBase

LOGGER = logging.getLogger(__name__)

RAW_TYPES = ("stream", "file", "blacklist")
_SOURCE = re.compile(r"(?=.{3,32}\Z)[a-z0-9-]+\.[a-z0-9-]+")


class AbstractBaseCollector:
    """What every collector has: a way to be run as a script."""

    @classmethod
    def run_script(cls) -> NoReturn:
        """The console command: parse the command line, do what it says, and exit with its code."""
        from n6_stateful.command import main  # upwards, since n6 has this method on the class

        raise SystemExit(main(cls))

    @classmethod
    def get_script_init_kwargs(cls) -> dict[str, Any]:
        """Keyword arguments with which a script makes the collector."""
        return {}

    def run_handling(self) -> None:
        """`run()`; on Ctrl+C `stop()`, and the interruption goes on to the caller."""
        try:
            self.run()
        except KeyboardInterrupt:
            self.stop()
            raise

    def run(self) -> None:
        """Collect, publish, end."""
        raise NotImplementedError

    def stop(self) -> None:
        """Clean up after an interrupted `run()`."""


class BaseCollector(QueuedBase, AbstractBaseCollector):
    """Base of collectors.

    Attributes:
        type: n6's raw type: `stream`, `file` or `blacklist`.
        content_type: MIME type of the body; needed for `file` and `blacklist`.
        raw_format_version_tag: `YYYYMM`, once the format of the raw data has changed; part of the
            routing key.
        config_spec: the options of the collector, in n6's notation; its first section is the
            collector's own.
        extra_config_options: option lines that a base class or a mixin adds to that section.
        extra_config_specs: whole sections that a base class or a mixin adds, each option with a default.
        custom_converters: converters of the collector's own, by the names that its `config_spec` uses.
        config: the collector's own section, converted.
        config_full: all sections, those that base classes and mixins add too, by name.

    Raises:
        ConfigError: from the constructor, with everything that is wrong with the configuration.
        CollectorError: from the constructor, if `type` or `content_type` is wrong.
    """

    output_queue: dict[str, str] | list[dict[str, str]] | None = {"exchange": "raw", "exchange_type": "topic"}
    raw_format_version_tag: str | None = None
    type: str | None = None
    content_type: str | None = None
    config_spec: str = ""
    extra_config_options = "expect_every = :: str  ; how often it is to run, like 15m, 2h or 1d, for `status`"
    extra_config_specs: Sequence[str] = (
        JOURNAL_SPEC,
        "[monitoring]\ntextfile_dir = :: str ; a directory where Prometheus' node_exporter looks for metrics",
    )
    custom_converters: Mapping[str, Callable[[str], Any]] = {}

    config: ConfigSection
    config_full: dict[str, ConfigSection]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_type()
        self.set_configuration()

    def run_handling(self) -> None:
        """`run()`, as the outermost call; on Ctrl+C `stop()`, and the interruption goes on to the caller."""
        with self.outermost_call():
            super().run_handling()

    # Configuration

    def set_configuration(self) -> None:
        """Read the configuration files and set `config` and `config_full`.

        Raises:
            ConfigError: with every problem of every section.
        """
        spec = self.get_config_spec()
        files = ConfigFiles.from_paths(settings.current().config_paths)
        (section, *_) = section_names(spec) or [""]
        if not section:
            name = type(self).__name__
            raise CollectorError(f"{name}.config_spec declares no section: begin it with a '[section]' line")
        specs = [spec]
        for cls in type(self).__mro__:
            if options := vars(cls).get("extra_config_options"):
                specs.append(f"[{section}]\n{options}")
            specs += vars(cls).get("extra_config_specs", ())
        try:
            specs += output_specs(files, settings.current().output) if self._has_output() else ()
        except ConfigError as exc:
            try:
                load(specs, files, self.custom_converters)
            except ConfigError as others:
                raise ConfigError(f"{others}\n{exc}") from exc
            raise
        self.config_full = load(specs, files, self.custom_converters)
        self.config = self.config_full[section]

    def get_config_spec(self) -> str:
        """The spec to load, `config_spec`; its first section is the collector's own."""
        return self.config_spec

    def _has_output(self) -> bool:
        return settings.current().with_output and not settings.current().dry_run

    # The journal and the broker

    def journal_path(self) -> Path:
        """`<source>.<ClassName>.sqlite`, where the source is the option of that name, in `cache_dir`, or else
        in `[journal] directory`."""
        directory = self.config.get("cache_dir") or self.config_full["journal"]["directory"]
        name = ".".join(filter(None, (self.config.get("source"), type(self).__name__)))
        return Path(directory).expanduser() / f"{name}.sqlite"

    def journal_opened(self) -> None:
        """Warn if the journal belongs to another `url`."""
        place = re.sub("//[^/]*@", "//", str(self.config.get("url") or ""))  # without user and password
        digest = hashlib.sha256(place.encode()).hexdigest()[:16] if place else ""
        if digest in ("", self.journal.url):
            return
        if self.journal.url:
            LOGGER.warning(
                "%s was used with another url; if two configurations share it, each of them misses what the "
                "other one has collected: give them different cache_dirs or sources",
                self.journal.where,
            )
        self.journal.set_url(digest)

    @cached_property
    def broker(self) -> Broker | None:
        """The broker that is configured; None if messages stay in the outbox."""
        return configured_broker(self.config_full, settings.current().output)

    def outbox_is_destination(self) -> bool:
        """Whether the configuration says `url = outbox:`."""
        return self._has_output() and self.broker is None

    def send(self, journal: Journal) -> int:
        """Deliver what waits in the outbox to RabbitMQ; the number of messages delivered.

        Raises:
            PublishError: something still waits.
        """
        from n6_stateful.delivery import deliver  # it loads pika, which a run with nothing new does not need

        if not self.broker or not journal.backlog().messages:
            return 0

        def show(confirmed: int, total: int) -> None:
            self._progress.show(f"delivered {confirmed:,} of {total:,} messages")

        options = self.config_full["output"]
        return deliver(journal, self.broker, self._declared_exchanges(), options, show=show)

    def try_output(self) -> str:
        """Connect to the broker and look for the exchanges, sending nothing; what the output is called.

        Raises:
            PublishError: it cannot be used.
        """
        from n6_stateful.delivery import try_broker

        if self.broker is None:
            return "the outbox"
        try_broker(self.broker, self._declared_exchanges(), self.config_full["output"])
        return self.broker.where

    # From input data to a message

    def get_output_components(self, **input_data: Any) -> tuple[str, bytes, dict[str, Any]]:
        """What `publish_output` takes: routing key, body and AMQP properties.

        Calls, in this order: `process_input_data`, `get_source_channel`, `get_source`,
        `get_output_rk`, `get_output_data_body`, `get_output_prop_kwargs`.
        """
        processed_data = self.process_input_data(**input_data)
        source_channel = self.get_source_channel(**processed_data)
        source = self.get_source(source_channel=source_channel, **processed_data)
        self._check_source(source)
        output_rk = self.get_output_rk(source=source, **processed_data)
        body = as_body(self.get_output_data_body(source=source, **processed_data))
        properties = self.get_output_prop_kwargs(source=source, output_data_body=body, **processed_data)
        return output_rk, body, properties

    def process_input_data(self, **input_data: Any) -> dict[str, Any]:
        """Keyword arguments for the methods below, from those of `get_output_components`."""
        return input_data

    def get_source_channel(self, **processed_data: Any) -> str:
        """The part of the source after the dot. To be written in each collector."""
        raise NotImplementedError(f"{type(self).__name__}.get_source_channel() is not written yet")

    def get_source(self, *, source_channel: str, **processed_data: Any) -> str:
        """The source, `<provider>.<channel>`; the provider is the option `source`."""
        if "source" not in self.config:
            raise CollectorError(
                f"{type(self).__name__}.config_spec declares no option 'source': "
                "add the line 'source :: str', or write get_source()"
            )
        return f"{self.config['source']}.{source_channel}"

    def get_output_rk(self, *, source: str, **processed_data: Any) -> str:
        """The routing key: the source, and the `raw_format_version_tag` if there is one."""
        return ".".join(filter(None, (source, self.raw_format_version_tag)))

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
        """The body, as `publish_output` takes it. To be written in each collector."""
        raise NotImplementedError(f"{type(self).__name__}.get_output_data_body() is not written yet")

    def get_output_prop_kwargs(
        self, *, source: str, output_data_body: bytes, **processed_data: Any
    ) -> dict[str, Any]:
        """AMQP properties by their names: `message_id`, `type`, `timestamp` (seconds), `headers`,
        and `content_type` for `file` and `blacklist`."""
        now = int(time.time())
        message_id = self.get_output_message_id(
            source=source, created_timestamp=now, output_data_body=output_data_body, **processed_data
        )
        headers: dict[str, Any] = {}
        properties = {"message_id": message_id, "type": self.type, "timestamp": now, "headers": headers}
        if self.type != "stream":
            properties["content_type"] = self.content_type
        return properties

    def get_output_message_id(
        self, *, source: str, created_timestamp: int, output_data_body: bytes, **processed_data: Any
    ) -> str:
        """The message id; empty to have `publish_output` make it, which alone knows all that a stable id
        depends on (see `n6_stateful.message_id`)."""
        return ""

    # Rules of n6

    def _check_type(self) -> None:
        name = type(self).__name__
        if self.type not in RAW_TYPES:
            raise CollectorError(f"{name}.type is {self.type!r}; it must be one of {', '.join(RAW_TYPES)}")
        if self.type != "stream" and not self.content_type:
            raise CollectorError(f"{name}.content_type is not set; {self.type!r} needs it, like 'text/csv'")

    def _check_source(self, source: str) -> None:
        if not _SOURCE.fullmatch(source):
            is_configured_well = re.match(r"[a-z0-9-]+\.", source)
            raise (CollectorError if is_configured_well else ConfigError)(
                f"the source {source!r} breaks n6's rule: lowercase ASCII letters, digits and hyphens around "
                f"one dot, at most 32 characters (this one has {len(source)}); nothing was published. "
                f"It is made of the option 'source' and {type(self).__name__}.get_source_channel()"
            )
