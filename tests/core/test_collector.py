"""n6's template methods: which are called, with what, and the rules of n6 that they keep."""

from __future__ import annotations

import time
from typing import Any

import pytest

from n6_stateful import BaseCollector, CollectorError, ConfigError
from n6_stateful.errors import N6StatefulError
from tests.core.memory_broker import InForce, MemoryBroker

CONFIG = """
[journal]
directory = {tmp}/cache
[a_collector]
source = my-provider
"""


class Collector(BaseCollector):
    type = "stream"
    config_spec = """
        [a_collector]
        source :: str
    """
    body: Any = b"a record"
    channel = "my-channel"

    def start_publishing(self) -> None:
        self.publish_output(*self.get_output_components())
        self.inner_stop()

    def get_source_channel(self, **processed_data: Any) -> str:
        return self.channel

    def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
        return self.body


def variant(**attributes: Any) -> type[Collector]:
    return type("Variant", (Collector,), attributes)


def test_properties(in_force: InForce, memory: MemoryBroker) -> None:
    """A message's properties are those of n6."""
    before = int(time.time())
    with in_force(CONFIG):
        Collector().run()
    (message,) = memory.delivered
    properties = dict(message.properties)
    assert before <= properties.pop("timestamp") <= time.time()
    assert len(properties.pop("message_id")) == 32
    assert properties == {"delivery_mode": 2, "type": "stream"}
    assert (message.exchange, message.routing_key) == ("raw", "my-provider.my-channel")


@pytest.mark.parametrize("raw_type", ["file", "blacklist"])
def test_content_type(raw_type: str, in_force: InForce, memory: MemoryBroker) -> None:
    """Files and blacklists have a content type."""
    with in_force(CONFIG):
        variant(type=raw_type, content_type="text/csv")().run()
    (message,) = memory.delivered
    assert (message.properties["type"], message.properties["content_type"]) == (raw_type, "text/csv")


def test_version_tag(in_force: InForce, memory: MemoryBroker) -> None:
    """The format version tag ends the routing key."""
    with in_force(CONFIG):
        variant(raw_format_version_tag="202601")().run()
    (message,) = memory.delivered
    assert message.routing_key == "my-provider.my-channel.202601"


def test_input_data(in_force: InForce) -> None:
    """Input data reaches every template method."""

    class Curious(Collector):
        def process_input_data(self, **input_data: Any) -> dict[str, Any]:
            return {"row": input_data["number"] + 1}

        def get_source_channel(self, **processed_data: Any) -> str:
            return f"channel-{processed_data['row']}"

        def get_output_rk(self, *, source: str, **processed_data: Any) -> str:
            return f"{source}.{processed_data['row']}"

        def get_output_data_body(self, *, source: str, **processed_data: Any) -> bytes:
            return f"{source} {processed_data['row']}".encode()

        def get_output_message_id(self, **kwargs: Any) -> str:
            return f"{kwargs['source']} {kwargs['row']} {kwargs['output_data_body']}"

        def get_output_prop_kwargs(self, **kwargs: Any) -> dict[str, Any]:
            return {**super().get_output_prop_kwargs(**kwargs), "app_id": str(kwargs["row"])}

    with in_force(CONFIG):
        rk, body, properties = Curious().get_output_components(number=6)
    assert rk == "my-provider.channel-7.7"
    assert body == b"my-provider.channel-7 7"
    assert properties["app_id"] == "7"
    assert properties["message_id"] == "my-provider.channel-7 7 b'my-provider.channel-7 7'"


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"type": None}, "type is None"),
        ({"type": "strem"}, "stream, file, blacklist"),
        ({"type": "file"}, "content_type is not set"),
        ({"type": "blacklist", "content_type": ""}, "content_type is not set"),
        ({"config_spec": ""}, "declares no section"),
    ],
)
def test_wrong_class(attributes: dict[str, Any], problem: str, in_force: InForce) -> None:
    """A class that breaks a rule of n6 is refused when it is made."""
    with in_force(CONFIG), pytest.raises(CollectorError, match=problem):
        variant(**attributes)()


@pytest.mark.parametrize("channel", ["", "Upper", "under_score", "two.dots", "ż", "space d", "x" * 21, "a\n"])
def test_wrong_channel(channel: str, in_force: InForce, memory: MemoryBroker) -> None:
    """A channel that breaks n6's pattern is refused, and nothing is published."""
    with in_force(CONFIG), pytest.raises(CollectorError, match="breaks n6's rule"):
        variant(channel=channel)().run()
    assert not memory.delivered


def test_longest_source(in_force: InForce, memory: MemoryBroker) -> None:
    """A source may have 32 characters."""
    with in_force(CONFIG):
        variant(channel="x" * 20)().run()
    assert len(memory.delivered[0].routing_key) == 32


def test_wrong_provider(in_force: InForce) -> None:
    """A provider that breaks n6's pattern is an error of the configuration."""
    with in_force("[a_collector]\nsource = My_Provider"), pytest.raises(ConfigError, match="My_Provider"):
        Collector().run()


def test_source_checked_first(in_force: InForce) -> None:
    """The source is checked before anything is downloaded."""

    class Downloading(Collector):
        channel = "WRONG"

        def get_output_data_body(self, *, source: str, **processed_data: Any) -> Any:
            pytest.fail("it downloaded all the same")

    with in_force(CONFIG), pytest.raises(N6StatefulError):
        Downloading().run()


def test_extra_options(in_force: InForce) -> None:
    """Classes may add options to the collector's section."""

    class Mixin:
        extra_config_options = """
            flavour = plain :: str
            count = 3 :: int
        """

    class Mixed(Mixin, Collector):
        pass

    with in_force(CONFIG + "flavour = sweet\n"):
        collector = Mixed()
    assert (collector.config["flavour"], collector.config["count"]) == ("sweet", 3)


class TestExtraConfigSpecs:
    """Whole sections that base classes and mixins add."""

    class Remembering:
        extra_config_specs = ("[memory]\ndays = 7 :: int", "[disk]\nmib = 1 :: int")

    class Telling:
        extra_config_specs = ("[telling]\nwhere = :: str",)

    def make(self) -> Any:
        return type("Mixed", (self.Remembering, self.Telling, Collector), {})()

    def test_loaded(self, in_force: InForce) -> None:
        """They are all in `config_full`, with their defaults or what the files say."""
        with in_force(CONFIG + "[memory]\ndays = 9\n"):
            full = self.make().config_full
        assert {name: dict(full[name]) for name in ("memory", "disk", "telling")} == {
            "memory": {"days": 9},
            "disk": {"mib": 1},
            "telling": {"where": ""},
        }

    def test_problems(self, in_force: InForce) -> None:
        """Problems in them are reported with all others."""
        text = "[a_collector]\nsourec = x\n[memory]\ndays = many\n[telling]\nwher = x\n"
        with in_force(text), pytest.raises(ConfigError) as caught:
            self.make()
        for part in (
            "4 problems",
            "[a_collector] source",
            "sourec",
            "[memory] days = 'many'",
            "[telling] wher",
        ):
            assert part in str(caught.value)


def test_custom_converters(in_force: InForce) -> None:
    """A collector may bring converters of its own for its `config_spec`."""
    spec = Collector.config_spec + "\nsizes :: list_of_kib"
    with in_force(CONFIG + "sizes = 1, 2\n"):
        collector = variant(config_spec=spec, custom_converters={"kib": lambda text: int(text) * 1024})()
    assert collector.config["sizes"] == [1024, 2048]


def test_further_sections(in_force: InForce) -> None:
    """A spec may have further sections."""
    spec = Collector.config_spec + "\n[other]\nkey = 1 :: int"
    with in_force(CONFIG + "[other]\nkey = 2\n"):
        collector = variant(config_spec=spec)()
    assert collector.config_full["other"]["key"] == 2
    assert collector.config["source"] == "my-provider"


def test_interruption(in_force: InForce) -> None:
    """An interrupted run is stopped, and the interruption goes on."""

    class Interrupted(Collector):
        stopped = False

        def start_publishing(self) -> None:
            raise KeyboardInterrupt

        def stop(self) -> None:
            self.stopped = True
            super().stop()

    with in_force(CONFIG):
        collector = Interrupted()
        with pytest.raises(KeyboardInterrupt):
            collector.run_handling()
    assert collector.stopped
