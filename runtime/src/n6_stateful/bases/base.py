"""n6 4.x's names, beside those of n6's guide: a collector that is written with either stands on these."""

from __future__ import annotations

import argparse
import csv
import re
import sys
from operator import attrgetter
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any, ClassVar, NoReturn

from n6_stateful import collector
from n6_stateful.errors import CollectorError
from n6_stateful.state import CollectorWithStateMixin

# The names in n6's guide and in n6 4.x for things of which there can be only one.
TWINS = (
    ("config_spec", "config_spec_pattern"),
    ("type", "raw_type"),
    ("run_handling", "run_collection"),
    ("get_cache_file_name", "get_state_file_name"),
)


class combined_config_spec:  # noqa: N801 - n6's name
    """`config_spec_pattern = combined_config_spec("...")` adds options to those of the base classes."""

    def __init__(self, text: str) -> None:
        self._text = dedent(text)

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: object, owner: type) -> str:
        # Its own first: the first declaration of an option counts.
        return f"{self._text}\n{getattr(super(self._owner, owner), self._name, '')}"


class BaseCollector(collector.BaseCollector):
    """Base of collectors, by n6 4.x's names or by those of n6's guide.

    Attributes:
        raw_type: n6 4.x's name of `type`.
        config_spec_pattern: n6 4.x's name of `config_spec`, with `{collector_class_name}` in the place of the
            section's name; lines that begin with `#` are comments.
        source_channel: the part of the source after the dot, where it is always the same. Where it depends on
            the record, write `get_source_channel`, or n6 4.x's `get_source`, which gives both parts.
        cmdline_args: the arguments that `get_arg_parser` adds to the command.

    Raises:
        CollectorError: from the constructor, if the class has both names of one thing.
    """

    raw_type: str | None = None
    type: Any = property(attrgetter("raw_type"))
    config_spec_pattern: Any = combined_config_spec("[{collector_class_name}]")
    source_channel = ""
    cmdline_args: ClassVar[argparse.Namespace]

    def __init__(self, **kwargs: Any) -> None:
        classes = [cls for cls in type(self).__mro__ if not cls.__module__.startswith("n6_stateful.")]
        for old, new in TWINS:
            if all(any(name in vars(cls) for cls in classes) for name in (old, new)):
                raise CollectorError(
                    f"{type(self).__name__} has {old}, as n6's guide says, and {new}, as n6 4.x does, for "
                    f"one thing: keep {new}, and remove {old}"
                )
        super().__init__(**kwargs)

    # The command

    @classmethod
    def get_arg_parser(cls) -> argparse.ArgumentParser:
        """A parser to which arguments of the collector's own can be added."""
        return argparse.ArgumentParser(add_help=False, allow_abbrev=False)

    @classmethod
    def run_script(cls) -> NoReturn:
        """The console command; what `get_arg_parser` knows of its arguments goes to `cmdline_args`."""
        from n6_stateful.command import main

        cls.cmdline_args, others = cls.get_arg_parser().parse_known_args()
        raise SystemExit(main(cls, others))

    # Configuration

    def set_configuration(self) -> None:
        """Read the configuration files and set `config` and `config_full`."""
        super().set_configuration()
        name, full = type(self).__name__, self.config_full
        self.config = self.get_config_from_config_full(config_full=full, collector_class_name=name)

    def get_config_spec(self) -> str:
        """`config_spec`, or what `config_spec_pattern` becomes."""
        if self.config_spec:
            return self.config_spec
        spec: str = self.config_spec_pattern.format(**self.get_config_spec_format_kwargs())
        return re.sub(r"(?m)^\s*#.*", "", spec)

    def get_config_spec_format_kwargs(self) -> dict[str, Any]:
        """What `config_spec_pattern` is formatted with."""
        return {"collector_class_name": type(self).__name__}

    def get_config_from_config_full(self, *, config_full: Any, collector_class_name: str) -> Any:
        """The collector's own section: the first one."""
        return self.config

    # A run

    def run_handling(self) -> None:
        """`run_collection`."""
        self.run_collection()

    def run_collection(self) -> None:
        """`run()`, and then `after_completed_publishing()`, unless there was nothing to publish."""
        with self.outermost_call():
            try:
                self.run()
            except KeyboardInterrupt:
                self.stop()
                raise
            if self.has_something_to_publish():
                self.after_completed_publishing()

    def has_something_to_publish(self) -> bool:
        """Whether the run is more than a look at a source that has nothing new."""
        return True

    def after_completed_publishing(self) -> None:
        """Called when everything has arrived."""

    def start_iterative_publishing(self) -> None:
        """For `start_publishing`: publish what `publish_iteratively` publishes."""
        for _ in self.publish_iteratively():
            pass
        self.inner_stop()

    def publish_iteratively(self) -> Any:
        """A generator that calls `publish_output` before each `yield`."""
        raise NotImplementedError(f"{type(self).__name__}.publish_iteratively() is not written yet")

    # Messages

    def get_source_channel(self, **processed_data: Any) -> str:
        """`source_channel`; to be written where it depends on the record."""
        return self.source_channel

    def get_source(self, **processed_data: Any) -> str:
        """The source, `<provider>.<channel>`; the provider is the option `source`."""
        if not processed_data["source_channel"]:
            name = type(self).__name__
            raise CollectorError(f"{name} has no channel: set source_channel, or write get_source_channel()")
        return super().get_source(**processed_data)

    def get_output_components(self, **input_data: Any) -> tuple[str, bytes, dict[str, Any]]:
        """As in the base class; then the methods `validate_...` are called."""
        routing_key, body, properties = super().get_output_components(**input_data)
        self.validate_source(".".join(routing_key.split(".")[:2]))
        self.validate_output_rk(routing_key)
        self.validate_output_data_body(body)
        self.validate_output_prop_kwargs(properties)
        return routing_key, body, properties

    def validate_source(self, source: str) -> None:
        """Raise if it is wrong; that it follows n6's rules is known by then."""

    def validate_output_rk(self, output_rk: str) -> None:
        """Raise if it is wrong."""

    def validate_output_data_body(self, output_data_body: bytes) -> None:
        """Raise if it is wrong."""

    def validate_output_prop_kwargs(self, output_prop_kwargs: dict[str, Any]) -> None:
        """Raise if they are wrong."""


class StatefulCollectorMixin(CollectorWithStateMixin):
    """`CollectorWithStateMixin` by n6 4.x's names: the option `state_dir`, and `get_state_file_name`.

    Args:
        state_pickle_protocol: instead of the attribute `pickle_protocol`.
    """

    config_spec_pattern: Any = combined_config_spec(
        "[{collector_class_name}]\nstate_dir = ~/.n6state :: path"
    )

    def __init__(self, *, state_pickle_protocol: int | None = None, **kwargs: Any) -> None:
        if state_pickle_protocol is not None:
            self.pickle_protocol = state_pickle_protocol
        super().__init__(**kwargs)

    def journal_path(self) -> Path:
        """As in the base class, in `state_dir` if there is no `cache_dir`."""
        if "state_dir" in self.config:
            self.config.setdefault("cache_dir", self._base.config["state_dir"])
        return super().journal_path()

    def get_cache_file_name(self) -> str:
        """`get_state_file_name`."""
        return self.get_state_file_name()

    def get_state_file_name(self) -> str:
        """The state's name: with `state_dir` `<module>.<Class>.pickle`, as in n6 4.x; with `cache_dir`
        `<source>.<Class>.pickle`, without the channel where that depends on the record."""
        cls, config = type(self), self.config
        if "state_dir" not in config:
            names = [config.get("source"), self.source_channel, cls.__name__, "pickle"]
            return ".".join(filter(None, names))
        if cls.__module__ == "__main__":
            raise CollectorError(f"{cls.__name__}: run it by its command, or write get_state_file_name()")
        return f"{cls.__module__}.{cls.__qualname__}.pickle"


def add_collector_entry_point_functions(module: ModuleType | str) -> None:
    """Give a module, or the one of that name, a function `<Class>_main` for each collector class in it."""
    if isinstance(module, str):
        module = sys.modules[module]
    for name, it in list(vars(module).items()):
        if isinstance(it, type) and issubclass(it, collector.AbstractBaseCollector) and name[0] != "_":
            setattr(module, f"{name}_main", it.run_script)


def split_csv_row(row: str, **kwargs: Any) -> list[str]:
    """The fields of a CSV row; `kwargs` as `csv.reader` takes them.

    >>> split_csv_row('a,"b,c"')
    ['a', 'b,c']
    """
    (fields,) = csv.reader([row], **kwargs)
    return fields


def extract_field_from_csv_row(row: str, column_index: int, **kwargs: Any) -> str:
    """One field of a CSV row, counted from 0."""
    return split_csv_row(row, **kwargs)[column_index]
