"""The public API as a user's type checker sees it: never run, checked by `tox run -e types`."""

from __future__ import annotations

from typing import Any, assert_type

from n6_stateful import (
    BaseCollector,
    CollectorWithStateMixin,
    ConfigError,
    Download,
    N6StatefulError,
    NothingNew,
    PublishError,
    SourceError,
    StateError,
    StateLockedError,
)
from n6_stateful.testing import CollectorHarness, MakeCollectorHarness, RunResult


class MyFeedCollector(CollectorWithStateMixin, BaseCollector):
    """The class of n6's guide, with types."""

    type = "stream"
    config_spec = """
        [my_feed]
        source :: str
        cache_dir :: path
    """
    state_classes = ["package.module.Class", dict]

    def make_default_state(self) -> dict[str, Any]:
        return {}

    def run(self) -> None:
        self.state = self.load_state()
        super().run()
        self.save_state(self.state)

    def start_publishing(self) -> None:
        output_rk, output_data_body, output_prop_kwargs = self.get_output_components()
        assert_type(output_rk, str)
        assert_type(output_data_body, bytes)
        assert_type(output_prop_kwargs, dict[str, Any])
        self.publish_output(output_rk, output_data_body, output_prop_kwargs)
        self.publish_output(output_rk, output_data_body, output_prop_kwargs, exchange="raw")
        self.flush_output()
        self.inner_stop()

    def get_source_channel(self, **processed_data: Any) -> str:
        return "my-channel"

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> bytes:
        data = self._download(self.state.get("last_utc"))
        if data is None:
            raise NothingNew("no page yet")
        self.state["last_utc"] = data.time_utc
        return data

    def _download(self, only_newer_than: str | None) -> Download | None:
        if only_newer_than is not None:
            return None
        raise SourceError("the source is down")


def errors(error: N6StatefulError) -> int:
    """Every error has the exit code that a scheduler sees."""
    for cls in (ConfigError, PublishError, SourceError, StateError, StateLockedError):
        assert_type(cls.exit_code, int)
    if isinstance(error, PublishError):
        assert_type(error.delivered, int)
    return error.exit_code


def harness(make_collector_harness: MakeCollectorHarness) -> None:
    """The fixture and what it hands out."""
    harness = make_collector_harness(MyFeedCollector)
    assert_type(harness, CollectorHarness)
    result = harness.run(Download(b"data", time_utc="2026-01-01"))
    assert_type(result, RunResult)
    assert_type(result.bodies, list[bytes])
    assert_type(result.exit_code, int)
