"""A collector in the style of n6 4.x's guide runs as it does there, and so do those of n6 4.x's own kinds."""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import CollectorError, StateError, bases
from n6_stateful.bases import (
    BaseCollector,
    BaseDownloadingTimeOrderedRowsCollector,
    BaseSimpleCollector,
    BaseTimeOrderedRowsCollector,
    BaseTwoPhaseCollector,
    StatefulCollectorMixin,
    add_collector_entry_point_functions,
    combined_config_spec,
    extract_field_from_csv_row,
)
from n6_stateful.command import main
from n6_stateful.testing import MakeCollectorHarness
from tests.core.memory_broker import MemoryBroker


class Body(bytes):
    time_utc = "2026-01-01T00:00:00"


# As the guide's collector is written with the names of n6 4.x.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, override"
# fmt: off
class MyStatefulCollector(StatefulCollectorMixin, BaseCollector):
    raw_type = 'stream'
    config_spec_pattern = combined_config_spec('''
        [{collector_class_name}]
        # where the data are
        url = https://feed.example/ :: str
    ''')
    def make_default_state(self):
        return {}
    def run_collection(self):
        self._state = self.load_state()
        super().run_collection()
    def after_completed_publishing(self):
        super().after_completed_publishing()
        self.save_state(self._state)
    def start_publishing(self):
        self.start_iterative_publishing()
    def publish_iteratively(self):
        self.publish_output(*self.get_output_components())
        yield
    def get_source(self, **processed_data):
        return 'my-provider.my-channel'
    def get_output_data_body(self, **kwargs):
        data = self._download(self.config['url'], only_newer_than=self._state.get('last_utc'))
        self._state['last_utc'] = data.time_utc
        return data

    def _download(self, url, only_newer_than):
        assert url == 'https://feed.example/'
        return Body(b'a record')


class PairsCollector(StatefulCollectorMixin, BaseTwoPhaseCollector):
    raw_type = 'file'
    content_type = 'text/csv'
    config_spec_pattern = '''
        # deliberately not combined, with a section of another name, and a converter of its own
        [{section}]
        source_provider :: str
        state_dir = ~/.n6state :: path
        headers = {{}} :: py_namespaces_dict
        level = high :: level
    '''
    @property
    def custom_converters(self):
        return {'level': {'low': 1, 'high': 2}.__getitem__}
    def get_config_spec_format_kwargs(self):
        return super().get_config_spec_format_kwargs() | {'section': 'pairs'}
    def get_config_from_config_full(self, *, config_full, collector_class_name):
        assert collector_class_name == type(self).__name__
        return config_full['pairs']
    def obtain_input_pile(self):
        self._seen = self.load_state() or 0
        return [1, 2] if self._seen < 2 else None
    def generate_input_data_dicts(self, input_pile, /):
        for number in input_pile:
            yield {'number': number}
    def after_completed_publishing(self):
        self.save_state(2)
    def get_source(self, **processed_data):
        return f"{self.config['source_provider']}.pairs-{processed_data['number']}"
    def get_output_data_body(self, *, number, **kwargs):
        self.raw_type = 'stream' if number == self.config['level'] else 'file'
        return b'%d' % number


class GeneratedPileCollector(PairsCollector):
    completed = 0
    def obtain_input_pile(self):
        self._seen = self.load_state() or 0
        if self._seen < 2:
            yield 1
            yield 2
    def after_completed_publishing(self):
        super().after_completed_publishing()
        GeneratedPileCollector.completed += 1


class PickingRowsCollector(BaseTimeOrderedRowsCollector):
    def get_source(self, **processed_data):
        return 'my-provider.rows'
    def obtain_orig_data(self):
        return b'# id, time\n"1","2026-01-01, 00:00"\n'
    def pick_raw_row_time(self, row):
        return extract_field_from_csv_row(row, column_index=1)
    def clean_row_time(self, raw_row_time):
        return raw_row_time.replace(', ', ' ')

    def obtain_input_pile(self):
        self._state = self.load_state()
        rows = self.all_rows_from_orig_data(self.obtain_orig_data())
        return self.get_fresh_rows_only(rows) or None
    def generate_input_data_dicts(self, rows, /):
        yield {'fresh_rows': rows}


class FlushedCollector(BaseCollector):
    """Acknowledges its input once it is safe, as n6's AMQP collector does, or fails before."""
    raw_type = "stream"
    output_queue = [{"exchange": "raw", "exchange_type": "topic"}, {"exchange": "sample"}]
    waits: list[int]
    def get_source(self, **processed_data: Any) -> str:
        return "my-provider.flushed"
    def get_output_data_body(self, *, number: int, **processed_data: Any) -> bytes:
        return b"%d" % number
    def start_publishing(self) -> None:
        super().start_publishing()
        self.waits = []
        self.start_iterative_publishing()
    def publish_iteratively(self) -> Any:
        for number in (1, 2):
            self.publish_output(*self.get_output_components(number=number))
            yield self.FLUSH_OUT
            self.waits.append(self.journal.backlog().messages)
        self.publish_output(*self.get_output_components(number=3), exchange=self.output_queue[1]["exchange"])
        yield


class AwaitingCollector(FlushedCollector):
    """The same as a coroutine, as n6's MISP collector is."""
    async def publish_iteratively(self) -> Any:
        async for number in self.numbers():
            self.publish_output(*self.get_output_components(number=number))
            await self.PubIterFlushOut
            self.waits.append(self.journal.backlog().messages)
        self.publish_output(*self.get_output_components(number=3), exchange="sample")
    async def numbers(self) -> Any:
        for number in (1, 2):
            await self.PubIter
            yield number


class NamedCollector(MyStatefulCollector):
    """Takes the name of its section from the command line, and all options from its own pattern."""
    config_spec_pattern = "[{section}]\nurl :: str\nstate_dir = ~/.n6state :: path\nempty :: str"
    def __init__(self, **kwargs: Any) -> None:
        self.section = self.cmdline_args.section
        super().__init__(**kwargs)
    @classmethod
    def get_arg_parser(cls) -> argparse.ArgumentParser:
        parser = super().get_arg_parser()
        parser.add_argument("section")
        return parser
    def get_config_spec_format_kwargs(self) -> dict[str, Any]:
        return {"section": self.section}
    def get_config_from_config_full(self, *, config_full: Any, collector_class_name: str) -> Any:
        return config_full[self.section]


class ByHandCollector(BaseSimpleCollector):
    """Without any configuration, and with an instance method for its arguments, as n6's manual collector."""
    raw_type = "stream"
    config_spec_pattern = None
    config: Any = {}
    def get_arg_parser(self) -> argparse.ArgumentParser:
        self.arg_parser = super().get_arg_parser()
        self.arg_parser.add_argument("--channel")
        self.arg_parser.add_argument("input_file")
        return self.arg_parser
    def set_configuration(self) -> None:
        pass
    def get_source(self, **processed_data: Any) -> str:
        if not self.cmdline_args.channel:
            self.arg_parser.error("argument --channel is required")
        return f"manual.{self.cmdline_args.channel}"
    def obtain_data_body(self) -> bytes:
        return Path(self.cmdline_args.input_file).read_bytes()
    def run_collection(self) -> None:
        self._components = self.get_output_components(**self.obtain_input_pile())
        with self.outermost_call():
            self.run()


class SetCollector(StatefulCollectorMixin, BaseSimpleCollector):
    """Keeps its state in `_state` from the constructor on, as n6's collectors do; the state has a class."""
    raw_type = "stream"
    source_channel = "set"
    kept: Any = None
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._state = None
    def get_source(self, **processed_data: Any) -> str:
        return "my-provider.set"
    def obtain_data_body(self) -> bytes | None:
        self._state = [*(self.load_state() or []), type(self).kept]
        return b"%d" % len(self._state)
    def after_completed_publishing(self) -> None:
        super().after_completed_publishing()
        self.save_state(self._state)
# fmt: on


CONFIG = """
[pairs]
source_provider = my-provider
level = low
[mine]
url = https://feed.example/
empty =
"""


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBroker]:
    """A broker in memory, with a configuration for each of the collectors, in force; states are in $HOME."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "60_test.conf").write_text(CONFIG)
    memory = MemoryBroker()
    with memory.in_place(tmp_path / "60_test.conf"):
        yield memory


def run(cls: type[BaseCollector], **kwargs: Any) -> Any:
    collector = cls(**kwargs)
    try:
        collector.run_collection()
    finally:
        collector.journal.discard()
        collector.journal.unlock()
    return collector


def variant(cls: type[BaseCollector], **members: Any) -> Any:
    return type(cls.__name__, (cls,), {"__module__": __name__, **members})


def sent(memory: MemoryBroker) -> list[tuple[str, bytes]]:
    return [(message.routing_key, message.body) for message in memory.delivered]


class TestCollectors:
    def test_guide(self, memory: MemoryBroker, tmp_path: Path) -> None:
        """It publishes, and remembers where n6 4.x does, under the name that n6 4.x gives the state."""
        run(MyStatefulCollector)
        assert sent(memory) == [("my-provider.my-channel", b"a record")]
        state = tmp_path / ".n6state" / f"{__name__}.MyStatefulCollector.pickle"
        assert pickle.loads(state.read_bytes()) == {"last_utc": "2026-01-01T00:00:00"}

    def test_two_phases(self, memory: MemoryBroker) -> None:
        """Section, converters and raw type of its own; without input nothing is done, nor completed."""
        run(PairsCollector)
        run(PairsCollector)
        assert sent(memory) == [("my-provider.pairs-1", b"1"), ("my-provider.pairs-2", b"2")]
        assert [message.properties["type"] for message in memory.delivered] == ["stream", "file"]

    def test_generator(self, memory: MemoryBroker) -> None:
        """A generator may make the pile, and load the state; one that yields nothing is completed, too."""
        run(GeneratedPileCollector)
        run(GeneratedPileCollector)
        assert GeneratedPileCollector.completed == 2
        assert memory.bodies == [b"1", b"2"]


class TestNames:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("config_spec", "config_spec_pattern"),
            ("type", "raw_type"),
            ("run_handling", "run_collection"),
            ("get_cache_file_name", "get_state_file_name"),
        ],
    )
    def test_mixed(self, old: str, new: str, memory: MemoryBroker) -> None:
        """Two names for one thing are an error that says which to keep, even if one of them is inherited."""
        with pytest.raises(CollectorError, match=f"keep {new}, and remove {old}"):
            variant(variant(BaseSimpleCollector, **{old: "stream"}), **{new: "stream"})()

    def test_main_module(self, memory: MemoryBroker) -> None:
        """A state that would be named after `__main__` is refused, as in n6."""
        with pytest.raises(CollectorError, match="get_state_file_name"):
            variant(MyStatefulCollector, __module__="__main__")().journal_path()

    def test_validation(self, memory: MemoryBroker) -> None:
        """The `validate_` methods are called, and may refuse."""
        seen: list[Any] = []
        names = ("source", "output_rk", "output_data_body", "output_prop_kwargs")
        run(
            variant(
                MyStatefulCollector,
                **{f"validate_{name}": lambda self, it: seen.append(it) for name in names},
            )
        )
        assert seen[:3] == ["my-provider.my-channel", "my-provider.my-channel", b"a record"]
        assert seen[3]["type"] == "stream"

    def test_entry_points(self) -> None:
        """Each public collector class of a module gets its function."""
        for module in (__name__, sys.modules[__name__]):
            add_collector_entry_point_functions(module)
            assert globals().pop("PairsCollector_main") == PairsCollector.run_script
            assert "Body_main" not in globals()

    @pytest.mark.parametrize("name", ["input_queue", "make_binding_keys"])
    def test_not_supported(self, name: str, memory: MemoryBroker) -> None:
        """What only n6 has is an error that names it, and the page that explains it."""
        with pytest.raises(CollectorError, match=rf"has {name}, .*docs/how-to/from-n6\.md"):
            variant(MyStatefulCollector, **{name: {"exchange": "x"}})()

    def test_not_imported(self) -> None:
        """So it is at import with a name of n6lib that many collectors use."""
        with pytest.raises(ImportError, match=r"no RequestPerformer.*docs/how-to/from-n6\.md"):
            exec("from n6_stateful.bases import RequestPerformer")  # noqa: S102
        assert not hasattr(bases, "something_else")


class TestIterativePublishing:
    @pytest.mark.parametrize("cls", [FlushedCollector, AwaitingCollector])
    def test_flushed(self, cls: type[FlushedCollector], memory: MemoryBroker) -> None:
        """What was published is safe when the code behind FLUSH_OUT runs, in a generator and a coroutine."""
        assert run(cls).waits == [1, 2]
        exchanges = [(message.exchange, message.body) for message in memory.delivered]
        assert exchanges == [("raw", b"1"), ("raw", b"2"), ("sample", b"3")]

    @pytest.mark.parametrize(
        ("steps", "expected"), [(None, "must be a generator or a coroutine"), (iter(["x"]), "yielded 'x'")]
    )
    def test_wrong(self, steps: Any, expected: str, memory: MemoryBroker) -> None:
        """Anything else that it returns or yields is an error that shows it."""
        with pytest.raises(CollectorError, match=rf"FlushedCollector\.publish_iteratively\(\) {expected}"):
            run(variant(FlushedCollector, publish_iteratively=lambda self: steps))

    def test_queues(self, memory: MemoryBroker) -> None:
        """`output_queue` is a list of the instance's own."""
        queues: Any = MyStatefulCollector().output_queue
        queues[0]["exchange"] = "other"
        assert MyStatefulCollector().output_queue == [{"exchange": "raw", "exchange_type": "topic"}]


class TestState:
    def test_state(self, memory: MemoryBroker) -> None:
        """`_state` is `state`, so the run's record can show how far the source was read."""
        assert [run(SetCollector).state, run(SetCollector).state] == [[None], [None, None]]
        assert memory.bodies == [b"1", b"2"]

    def test_once(self, memory: MemoryBroker, caplog: pytest.LogCaptureFixture) -> None:
        """A collector that loads the state where its base has loaded it already gets that one."""
        assert run(PickingRowsCollector).state["newest_row_time"] == "2026-01-01 00:00"
        assert caplog.text.count("there is no state yet") == 1
        run(PickingRowsCollector)
        assert memory.bodies == [b'"1","2026-01-01, 00:00"']

    def test_not_allowed(self, memory: MemoryBroker) -> None:
        """If the state cannot be saved, nothing is published, however often it is retried."""
        for _ in range(2):
            with pytest.raises(StateError, match="nothing was published"):
                run(variant(SetCollector, kept=pytest))
        assert memory.bodies == []


class TestArguments:
    """Arguments of a collector's own on the command line."""

    def test_section(self, memory: MemoryBroker, capsys: pytest.CaptureFixture[str]) -> None:
        """They are there in the constructor, and beside the command's own options."""
        assert main(NamedCollector, ["mine", "--log-level", "error"]) == 0
        assert memory.bodies == [b"a record"]
        assert main(NamedCollector, ["state", "show", "mine"]) == 0
        assert "last_utc" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("argv", "code"), [(["--help"], 0), (["run", "--help"], 0), (["--version"], 0), ([], 2)]
    )
    def test_required(self, argv: list[str], code: int, memory: MemoryBroker) -> None:
        """A required argument is not needed for help, but for a run."""
        with pytest.raises(SystemExit) as ended:
            main(NamedCollector, argv)
        assert (ended.value.code or 0) == code

    def test_by_hand(self, memory: MemoryBroker, tmp_path: Path) -> None:
        """The parser may be made by an instance method, and kept; the configuration may be left out."""
        (tmp_path / "data").write_text("some data")
        assert main(ByHandCollector, ["--channel", "pl", str(tmp_path / "data")]) == 0
        assert sent(memory) == [("manual.pl", b"some data")]
        assert main(ByHandCollector, [str(tmp_path / "data")]) == 1

    def test_harness(self, make_collector_harness: MakeCollectorHarness) -> None:
        """The harness takes them, too."""
        harness = make_collector_harness(NamedCollector, "[mine]\nurl = https://feed.example/\nempty =\n")
        result = harness.run(lambda *_: Body(b"a record"), argv=["mine"])
        assert (result.exit_code, result.bodies) == (0, [b"a record"]), result.text


def test_own_pattern(memory: MemoryBroker) -> None:
    """Options that base classes require are optional if the pattern is not combined with theirs."""

    class Downloading(BaseDownloadingTimeOrderedRowsCollector):
        config_spec_pattern = "[mine]\nempty :: str\ndownload_timeout = 5 :: download_timeout"

        def set_configuration(self) -> None:
            super().set_configuration()
            assert self.config_full["mine"] is self.config
            self.config["url"] = "https://hard.example/"

    config = Downloading().config
    assert (config["url"], config["download_timeout"], config["empty"]) == (
        "https://hard.example/",
        (5, 5),
        "",
    )
