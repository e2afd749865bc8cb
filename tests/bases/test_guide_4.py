"""A collector in the style of n6 4.x's guide runs as it does there, and so do those of n6 4.x's own kinds."""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import CollectorError, settings
from n6_stateful.bases import (
    BaseCollector,
    BaseDownloadingCollector,
    BaseSimpleCollector,
    BaseSimpleEmailCollector,
    BaseTimeOrderedRowsCollector,
    BaseTwoPhaseCollector,
    StatefulCollectorMixin,
    add_collector_entry_point_functions,
    combined_config_spec,
    extract_field_from_csv_row,
)
from n6_stateful.testing import MakeCollectorHarness, MemoryOutput

STATE = "tests.bases.test_guide_4.{}.pickle"


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


# n6 4.x's page on state still shows names of the older guide, with `raw_type` and `state_dir` among them.
class OlderNamesCollector(StatefulCollectorMixin, BaseCollector):
    raw_type = 'stream'
    config_spec = '''
        [older_names]
        state_dir :: path
        source :: str
    '''
    def make_default_state(self):
        return {}
    def run(self):
        self.state = self.load_state()
        super().run()
        self.save_state(self.state)
    def start_publishing(self):
        output_rk, output_data_body, output_prop_kwargs = self.get_output_components()
        self.publish_output(output_rk, output_data_body, output_prop_kwargs)
        self.inner_stop()
    def get_source_channel(self, **processed_data):
        return 'older-names'
    def get_output_data_body(self, **kwargs):
        self.state['runs'] = self.state.get('runs', 0) + 1
        return b'%d' % self.state['runs']


class SourcelessCollector(OlderNamesCollector):
    config_spec = OlderNamesCollector.config_spec.replace('source :: str', '')


class PairsCollector(StatefulCollectorMixin, BaseTwoPhaseCollector):
    raw_type = 'file'
    content_type = 'text/csv'
    config_spec_pattern = '''
        # deliberately not combined, with a section of another name, and a converter of its own
        [{section}]
        source_provider :: str
        state_dir :: path
        headers = {{}} :: py_namespaces_dict
        level = high :: level
    '''
    @property
    def custom_converters(self):
        return {'level': {'low': 1, 'high': 2}.__getitem__}
    def get_config_spec_format_kwargs(self):
        return super().get_config_spec_format_kwargs() | {'section': 'pairs'}
    def get_config_from_config_full(self, *, config_full, collector_class_name):
        assert collector_class_name == 'PairsCollector'
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
    def get_config_from_config_full(self, *, config_full, collector_class_name):
        return config_full['pairs']
    def obtain_input_pile(self):
        self._seen = self.load_state() or 0
        if self._seen < 2:
            yield 1
            yield 2


class ReportCollector(BaseDownloadingCollector, BaseSimpleEmailCollector):
    raw_type = 'file'
    content_type = 'text/csv'
    config_spec_pattern = combined_config_spec('''
        [{collector_class_name}]
        # the first group is what matters
        subject_pattern
        channels :: py
    ''')
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._channel = self.config['channels'][self.email_msg.get_subject()]
    def get_source(self, **processed_data):
        return f'shadowserver.{self._channel}'
    def obtain_data_body(self):
        return self.get_email_msg_text('text/plain').encode()


class SimpleRowsCollector(BaseTimeOrderedRowsCollector):
    def get_source(self, **processed_data):
        return 'my-provider.rows'
    def obtain_orig_data(self):
        return b'# id, time\n"1","2026-01-01, 00:00"\n'
    def pick_raw_row_time(self, row):
        return extract_field_from_csv_row(row, column_index=1)
    def clean_row_time(self, raw_row_time):
        return raw_row_time.replace(', ', ' ')
# fmt: on


class NothingCollector(BaseSimpleCollector):
    raw_type = "stream"
    completed = False

    def obtain_data_body(self) -> bytes | None:
        return None

    def after_completed_publishing(self) -> None:
        NothingCollector.completed = True


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryOutput]:
    """An output in memory, with a configuration for each of the collectors, in force."""
    path = tmp_path / "60_test.conf"
    path.write_text(
        f"[MyStatefulCollector]\nstate_dir = {tmp_path}/state\n"
        f"[older_names]\nsource = my-provider\nstate_dir = {tmp_path}/state\n"
        f"[SimpleRowsCollector]\nstate_dir = {tmp_path}/state\n"
        f"[pairs]\nsource_provider = my-provider\nstate_dir = {tmp_path}/state\nlevel = low\n"
        "[ReportCollector]\nsubject_pattern = (.*)\nchannels = {'Report': 'sinkhole'}\n"
    )
    output = MemoryOutput()
    with settings.use(settings.Settings(config_paths=(str(path),), output=output)):
        yield output


def run(cls: type[BaseCollector], **kwargs: Any) -> BaseCollector:
    collector = cls(**kwargs)
    collector.run_collection()
    if isinstance(collector, StatefulCollectorMixin):
        collector.close_state()
    return collector


class TestCollectors:
    def test_guide(self, memory: MemoryOutput, tmp_path: Path) -> None:
        """It publishes, and remembers where n6 4.x does, under the name that n6 4.x gives the state."""
        run(MyStatefulCollector)
        (message,) = memory.delivered
        assert (message.routing_key, message.body) == ("my-provider.my-channel", b"a record")
        state = tmp_path / "state" / STATE.format("MyStatefulCollector")
        assert pickle.loads(state.read_bytes()) == {"last_utc": "2026-01-01T00:00:00"}

    def test_older_names(self, memory: MemoryOutput) -> None:
        """One with `raw_type` and `state_dir` and the older guide's other names, as n6 4.x's page has it."""
        run(OlderNamesCollector)
        run(OlderNamesCollector)
        assert [(each.routing_key, each.body) for each in memory.delivered] == [
            ("my-provider.older-names", b"1"),
            ("my-provider.older-names", b"2"),
        ]

    def test_no_source(self, memory: MemoryOutput, tmp_path: Path) -> None:
        """What gives the channel alone needs the option `source`."""
        conf = tmp_path / "60_test.conf"
        conf.write_text(f"[older_names]\nstate_dir = {tmp_path}/state\n")
        with pytest.raises(CollectorError, match=r"declares no option 'source'.*, or write get_source"):
            run(SourcelessCollector)

    def test_run_handling(self, memory: MemoryOutput) -> None:
        """The command, which calls the guide's name, does the same."""
        collector = MyStatefulCollector()
        collector.run_handling()
        collector.close_state()
        assert len(memory.delivered) == 1

    def test_two_phases(self, memory: MemoryOutput, tmp_path: Path) -> None:
        """Section, converters and raw type of its own; without input nothing is done, nor completed."""
        run(PairsCollector)
        run(PairsCollector)
        assert [(each.routing_key, each.properties["type"]) for each in memory.delivered] == [
            ("my-provider.pairs-1", "stream"),
            ("my-provider.pairs-2", "file"),
        ]
        assert (tmp_path / "state" / STATE.format("PairsCollector")).exists()

    def test_generator(self, memory: MemoryOutput) -> None:
        """So it is with a pile that a generator makes, whose code loads the state."""
        run(GeneratedPileCollector)
        run(GeneratedPileCollector)
        assert [each.body for each in memory.delivered] == [b"1", b"2"]

    def test_mail(self, memory: MemoryOutput) -> None:
        """A mail that says in the constructor which channel it is of."""
        run(ReportCollector, raw_email_msg=b"Subject: Report\n\ntext\n")
        assert memory.delivered[0].routing_key == "shadowserver.sinkhole"
        assert memory.delivered[0].properties["headers"] == {"meta": {"mail_subject": "Report"}}

    def test_rows(self, memory: MemoryOutput, tmp_path: Path) -> None:
        """Not even a configuration section needs to be declared."""
        run(SimpleRowsCollector)
        run(SimpleRowsCollector)
        assert [each.body for each in memory.delivered] == [b'"1","2026-01-01, 00:00"']
        assert (tmp_path / "state" / STATE.format("SimpleRowsCollector")).exists()

    def test_nothing(self, memory: MemoryOutput) -> None:
        """`after_completed_publishing` is for runs that had something to publish."""
        run(NothingCollector)
        assert not NothingCollector.completed

    def test_harness(self, make_collector_harness: MakeCollectorHarness) -> None:
        """The harness runs them, too."""
        harness = make_collector_harness(SimpleRowsCollector, "[SimpleRowsCollector]\nstate_dir = /nowhere\n")
        harness.assert_stateful_contract(b'"1","2026-01"', b'"1","2026-01"\n"2","2026-02"')


class TestNames:
    @pytest.mark.parametrize(
        ("members", "keep"),
        [
            ({"config_spec": "[a]", "config_spec_pattern": "[a]"}, "config_spec_pattern"),
            ({"type": "stream", "raw_type": "stream"}, "raw_type"),
            ({"run_handling": None, "run_collection": None}, "run_collection"),
            ({"get_cache_file_name": None, "get_state_file_name": None}, "get_state_file_name"),
        ],
    )
    def test_mixed(self, members: dict[str, Any], keep: str, memory: MemoryOutput) -> None:
        """Two names for one thing are an error that says which to keep, also with one of them inherited."""
        (old, value), (new, other) = members.items()
        parent = type("Parent", (BaseSimpleCollector,), {"__module__": __name__, old: value})
        mixed: Any = type("Mixed", (parent,), {"__module__": __name__, new: other})
        with pytest.raises(CollectorError, match=f"keep {keep}, and remove {old}"):
            mixed()

    def test_pickle_protocol(self, memory: MemoryOutput) -> None:
        """`state_pickle_protocol` is what `pickle_protocol` is."""
        assert MyStatefulCollector(state_pickle_protocol=4).pickle_protocol == 4

    def test_main_module(self, memory: MemoryOutput, monkeypatch: pytest.MonkeyPatch) -> None:
        """A state that would be named after `__main__` is refused, as in n6."""
        monkeypatch.setattr(MyStatefulCollector, "__module__", "__main__")
        with pytest.raises(CollectorError, match="get_state_file_name"):
            MyStatefulCollector()

    def test_validation(self, memory: MemoryOutput) -> None:
        """The `validate_` methods are called, and may refuse."""
        seen: list[Any] = []
        names = ("source", "output_rk", "output_data_body", "output_prop_kwargs")
        members: dict[str, Any] = {f"validate_{name}": lambda self, it: seen.append(it) for name in names}
        cls: Any = type("MyStatefulCollector", (MyStatefulCollector,), {"__module__": __name__, **members})
        run(cls)
        assert seen[:3] == ["my-provider.my-channel", "my-provider.my-channel", b"a record"]
        assert seen[3]["type"] == "stream"

    def test_entry_points(self) -> None:
        """Each public collector class of a module gets its function."""
        module = sys.modules[__name__]
        add_collector_entry_point_functions(__name__)
        assert vars(module)["PairsCollector_main"] == PairsCollector.run_script
        assert "Body_main" not in vars(module)

    def test_arguments(self, memory: MemoryOutput, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Arguments of its own are there in the constructor, and the command has the others."""

        class Named(MyStatefulCollector):
            config_spec_pattern = "[{section}]\nurl :: str\nstate_dir = ~/.n6state :: path"

            @classmethod
            def get_arg_parser(cls) -> argparse.ArgumentParser:
                parser = super().get_arg_parser()
                parser.add_argument("section")
                return parser

            def get_config_spec_format_kwargs(self) -> dict[str, Any]:
                return {"section": self.cmdline_args.section}

        path = tmp_path / "60_named.conf"
        path.write_text(f"[mine]\nurl = https://feed.example/\nstate_dir = {tmp_path}/state\n")
        monkeypatch.setattr(sys, "argv", ["n6collector_named", "mine", "--config", str(path)])
        with pytest.raises(SystemExit) as ended:
            Named.run_script()
        assert ended.value.code == 0
        assert len(memory.delivered) == 1
