"""The base collector, which accepts both n6 4.x's names and those of n6's guide."""

from __future__ import annotations

import copy
import csv
import inspect
import re
import sys
from collections.abc import Awaitable, Generator, Iterator
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from n6_stateful import collector
from n6_stateful.errors import CollectorError
from n6_stateful.state import CollectorWithStateMixin

if TYPE_CHECKING:
    import argparse

# Pairs of names for the same thing, in n6's guide and in n6 4.x; a class may use one of each.
GUIDE = ("config_spec", "type", "run_handling", "get_cache_file_name")
N6_4 = ("config_spec_pattern", "raw_type", "run_collection", "get_state_file_name")
# Used by n6's base classes, but not here.
NOT_SUPPORTED = {"input_queue", "input_callback", "make_binding_keys", "get_component_group_and_id"}
PAGE = "docs/how-to/from-n6.md"
_REQUIRED = re.compile(r"(?m)^\s*(\w+)\s*::")


class combined_config_spec:  # noqa: N801 - n6's name
    """`config_spec_pattern = combined_config_spec("...")` adds options to those of the base classes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: object, owner: type) -> str:
        # Its own first: the first declaration of an option counts.
        return f"{self._text}\n{getattr(super(self._owner, owner), self._name, None) or ''}"


class _Marker(NamedTuple):
    """How `publish_iteratively` returns control: `yield` the value, or `await` the marker."""

    value: str | None

    def __await__(self) -> Generator[str | None, None, None]:
        yield self.value


class CollectorConfigMixin:
    """n6 4.x's configuration hooks, which every collector class of this package has.

    Attributes:
        config_spec_pattern: n6 4.x's name for `config_spec`, with `{collector_class_name}` as the section's
            name; lines that begin with `#` are comments. Unless it is a `combined_config_spec`, it must
            declare every option that the collector needs.
    """

    config_spec: str = ""
    config_spec_pattern: Any = combined_config_spec("[{collector_class_name}]")
    config: Any
    config_full: Any

    def set_configuration(self) -> None:
        """Read the configuration files and set `config` and `config_full`."""
        super().set_configuration()  # type: ignore[misc]
        name, full = type(self).__name__, self.config_full
        self.config = self.get_config_from_config_full(config_full=full, collector_class_name=name)

    def get_config_spec(self) -> str:
        """`config_spec`, or what `config_spec_pattern` becomes."""
        if self.config_spec:
            return self.config_spec
        pattern = self.config_spec_pattern or "[{collector_class_name}]"
        spec: str = re.sub(r"(?m)^\s*#.*", "", pattern.format(**self.get_config_spec_format_kwargs()))
        if isinstance(inspect.getattr_static(self, "config_spec_pattern"), combined_config_spec):
            return spec
        # Options that the base classes require become optional; the first declaration counts.
        added = [vars(cls).get("extra_config_options", "") for cls in type(self).__mro__]
        return "\n".join([spec, *(_REQUIRED.sub(r"\1 = ::", options) for options in added)])

    def get_config_spec_format_kwargs(self) -> dict[str, Any]:
        """The values for the placeholders in `config_spec_pattern`."""
        return {"collector_class_name": type(self).__name__}

    def get_config_from_config_full(self, *, config_full: Any, collector_class_name: str) -> Any:
        """The collector's own section: the first one."""
        return self.config


class BaseCollector(CollectorConfigMixin, collector.BaseCollector):
    """The base class of collectors; it accepts n6 4.x's names and those of n6's guide.

    Attributes:
        raw_type: n6 4.x's name for `type`.
        source_channel: the part of the source after the dot, if it is always the same. If it depends on the
            record, write `get_source_channel`, or n6 4.x's `get_source`, which returns both parts.
        cmdline_args: the parsed command line, with the arguments that `get_arg_parser` added.
        FLUSH_OUT: `publish_iteratively` yields it to commit everything published so far.
        PubIterFlushOut: the same for a coroutine, which awaits it; `PubIter` stands for a bare `yield`.

    Raises:
        CollectorError: from the constructor, if the class uses both names for one thing, or needs a part of
            n6 that does not exist here.
    """

    raw_type: str | None = None
    type: Any = property(attrgetter("raw_type"))
    source_channel = ""
    cmdline_args: ClassVar[argparse.Namespace]
    FLUSH_OUT = "FLUSH_OUT"
    PubIter, PubIterFlushOut = _Marker(None), _Marker(FLUSH_OUT)
    _conn_params_dict: ClassVar = {"heartbeat_interval": 30}  # n6 4.x's AMQP collector looks there

    def __new__(cls, **kwargs: Any) -> Any:
        """As in n6, `get_arg_parser` may be an instance method, which is called before `__init__`."""
        made = super().__new__(cls)
        made.get_arg_parser()
        return made

    def __init__(self, **kwargs: Any) -> None:
        name = type(self).__name__
        classes = [cls for cls in type(self).__mro__ if not cls.__module__.startswith("n6_stateful.")]
        own = {key for cls in classes for key, value in vars(cls).items() if value is not None}
        for old, new in zip(GUIDE, N6_4, strict=True):
            if {old, new} <= own:
                raise CollectorError(f"{name} has both {old} and {new}: keep {new}, and remove {old}")
        for missing in own & NOT_SUPPORTED:
            raise CollectorError(f"{name} has {missing}, which does nothing here; see {PAGE}")
        queues = self.output_queue or []
        self.output_queue = copy.deepcopy([queues] if isinstance(queues, dict) else queues)
        # n6 4.x's MISP collector looks there.
        self._declared_output_exchanges = {queue.get("exchange") for queue in self.output_queue}
        super().__init__(**kwargs)
        if "config_full" not in vars(self):  # set_configuration() is overridden to do nothing
            collector.BaseCollector.set_configuration(self)

    @classmethod
    def get_arg_parser(cls) -> argparse.ArgumentParser:
        """A parser; override this to add arguments of your own. The override may also be an instance method,
        which is called before `__init__`."""
        import argparse

        return argparse.ArgumentParser(add_help=False, allow_abbrev=False)

    # A run

    def run_handling(self) -> None:
        """`run_collection`."""
        self.run_collection()

    def run_collection(self) -> None:
        """`run()`, and then `after_completed_publishing()`, unless there was nothing to publish."""
        with self.outermost_call():
            super().run_handling()
            if self.has_something_to_publish():
                self.after_completed_publishing()

    def has_something_to_publish(self) -> bool:
        """Whether the source had anything new."""
        return True

    def after_completed_publishing(self) -> None:
        """Called when everything has been delivered."""

    def start_iterative_publishing(self) -> None:
        """Run `publish_iteratively` to its end; for use in `start_publishing`."""
        hook, steps = f"{type(self).__name__}.publish_iteratively()", self.publish_iteratively()
        if not isinstance(steps, Iterator | Awaitable):
            raise CollectorError(f"{hook} must be a generator or a coroutine, not {type(steps).__name__}")
        for marker in steps.__await__() if isinstance(steps, Awaitable) else steps:
            if marker == self.FLUSH_OUT:
                self.flush_output()
            elif marker is not None:
                raise CollectorError(f"{hook} yielded {marker!r:.60}, not None or self.FLUSH_OUT")
        self.inner_stop()

    def publish_iteratively(self) -> Any:
        """A generator that calls `publish_output` before each `yield`, or a coroutine that awaits `PubIter`.

        `yield self.FLUSH_OUT` (or `await self.PubIterFlushOut`) commits what was published so far.
        """
        raise NotImplementedError(f"{type(self).__name__}.publish_iteratively() is not written yet")

    # Messages

    def get_source_channel(self, **processed_data: Any) -> str:
        """`source_channel`; override this if the channel depends on the record."""
        return self.source_channel

    def get_output_components(self, **input_data: Any) -> tuple[str, bytes, dict[str, Any]]:
        """As in the base class, then checked by the `validate_...` methods."""
        components = routing_key, body, properties = super().get_output_components(**input_data)
        self.validate_source(".".join(routing_key.split(".")[:2]))
        self.validate_output_rk(routing_key)
        self.validate_output_data_body(body)
        self.validate_output_prop_kwargs(properties)
        return components

    def validate_source(self, value: Any, /) -> None:
        """Override this to raise if the value is wrong. n6's own rules have been checked before."""

    validate_output_rk = validate_output_data_body = validate_output_prop_kwargs = validate_source


class StatefulCollectorMixin(CollectorConfigMixin, CollectorWithStateMixin):
    """`CollectorWithStateMixin` with n6 4.x's names: `state_dir`, `get_state_file_name`, and `_state` for
    `state`."""

    config_spec_pattern = combined_config_spec("[{collector_class_name}]\nstate_dir = ~/.n6state :: path")
    _state = property(attrgetter("state"), lambda self, state: setattr(self, "state", state))

    def journal_path(self) -> Path:
        """As in the base class, in `state_dir` if there is no `cache_dir`."""
        if "state_dir" in self.config:
            self.config.setdefault("cache_dir", self.config["state_dir"])
        return super().journal_path()

    def get_cache_file_name(self) -> str:
        """`get_state_file_name`."""
        return self.get_state_file_name()

    def get_state_file_name(self) -> str:
        """The state's name: `<module>.<Class>.pickle` with `state_dir`, as in n6 4.x, else
        `<source>.<Class>.pickle`, without the channel if that depends on the record."""
        cls, config = type(self), self.config
        if "state_dir" not in config:
            names = [config.get("source"), getattr(self, "source_channel", ""), cls.__name__, "pickle"]
            return ".".join(filter(None, names))
        if cls.__module__ == "__main__":
            raise CollectorError(f"{cls.__name__}: run it by its command, or write get_state_file_name()")
        return f"{cls.__module__}.{cls.__qualname__}.pickle"


def with_meta(properties: dict[str, Any], **meta: Any) -> dict[str, Any]:
    """AMQP properties with these values, except None, in the header `meta`."""
    if known := {name: str(value) for name, value in meta.items() if value is not None}:
        properties["headers"].setdefault("meta", {}).update(known)
    return properties


def add_collector_entry_point_functions(module: Any) -> None:
    """Add a function `<Class>_main` for each collector class in a module (or the module of that name)."""
    names = vars(sys.modules.get(module, module))
    for name, value in list(names.items()):
        if isinstance(value, type) and issubclass(value, collector.AbstractBaseCollector) and name[0] != "_":
            names[f"{name}_main"] = value.run_script


def split_csv_row(row: str, **kwargs: Any) -> list[str]:
    """The fields of a CSV row; `kwargs` as `csv.reader` takes them.

    >>> split_csv_row('a,"b,c"')
    ['a', 'b,c']
    """
    return next(csv.reader([row], **kwargs))


def extract_field_from_csv_row(row: str, column_index: int, **kwargs: Any) -> str:
    """One field of a CSV row, counted from 0."""
    return split_csv_row(row, **kwargs)[column_index]
