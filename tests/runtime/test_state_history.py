"""Random histories of a state file, against a model of what it has to hold."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.runtime.state_program import Program

NAME = "provider.channel.Program.pickle"
STATES = st.dictionaries(
    st.text(max_size=5),
    st.integers() | st.binary(max_size=5) | st.sets(st.integers(), max_size=5) | st.dates(),
    max_size=3,
)


class Histories(RuleBasedStateMachine):
    """`current` and `before` model the states that the two files hold; None: there is no such file."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.directory.chmod(0o700)
        self.current: Any = None
        self.before: Any = None
        self.broken = 0

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    def program(self) -> Program:
        return Program(cache_dir=str(self.directory))

    def loaded(self) -> Any:
        program = self.program()
        state = program.load_state()
        program.close_state()
        return state

    def saved(self, state: Any) -> None:
        if self.current is not None:
            self.before = self.current
        self.current = state

    def fallen_back(self) -> None:
        self.current, self.before = self.before, None
        self.broken += 1

    @rule(state=STATES)
    def save(self, state: Any) -> None:
        program = self.program()
        program.load_state()
        program.save_state(state)
        program.close_state()
        self.saved(state)

    @rule(state=STATES)
    def save_of_nothing_new(self, state: Any) -> None:
        program = self.program()
        program.load_state()
        program.save_as_new(state, 5, keep_previous=False)
        program.close_state()
        self.current = state

    @rule(state=STATES, written=st.floats(0, 1))
    def crash_while_writing(self, state: Any, written: float) -> None:
        whole = Path(tempfile.mkdtemp())
        whole.chmod(0o700)
        program = Program(cache_dir=str(whole))
        program.save(state)
        program.close_state()
        data = (whole / NAME).read_bytes()
        shutil.rmtree(whole)
        (self.directory / f".{NAME}.0.tmp").write_bytes(data[: int(len(data) * written)])

    @rule(at=st.integers(0, 10_000), bit=st.integers(0, 7))
    def flip(self, at: int, bit: int) -> None:
        path = self.directory / NAME
        if self.current is None or not path.exists():
            return
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= 1 << bit
        path.write_bytes(data)
        self.fallen_back()

    @rule(keep=st.floats(0, 0.999))
    def truncate(self, keep: float) -> None:
        path = self.directory / NAME
        if self.current is None or not path.exists():
            return
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
        self.fallen_back()

    @rule()
    def reset(self) -> None:
        program = self.program()
        program.load_state()
        program.save_as_new(program.make_default_state(), 1)
        program.close_state()
        self.saved({"value": "default"})

    @rule()
    def restore(self) -> None:
        if self.current is None or self.before is None:
            return
        program = self.program()
        state, _ = program.read_state(program.state_store.generations()[1])
        program.save_as_new(state, 9)
        program.close_state()
        self.saved(self.before)

    @invariant()
    def what_is_loaded_is_what_the_model_holds(self) -> None:
        if not hasattr(self, "directory"):
            return
        expected = self.current if self.current is not None else {"value": "default"}
        # Twice: what a run that saves nothing leaves is what it found.
        assert [self.loaded(), self.loaded()] == [expected, expected]
        assert len(list(self.directory.glob("*.broken-*"))) == self.broken
        assert not list(self.directory.glob(".*.tmp"))


Histories.TestCase.settings = hypothesis_settings(max_examples=25, stateful_step_count=20, deadline=None)
TestHistories = Histories.TestCase
