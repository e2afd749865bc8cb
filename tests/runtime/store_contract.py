"""What every store of states owes. A store's own test file derives a class from `StoreContract` and gives it
two fixtures: `make_store`, and `damage` by which a stored state is changed behind the store's back."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from n6_stateful import StateError, StateLockedError
from n6_stateful.state.store import BrokenStateError, Generation, StateStore

MakeStore = Callable[[], StateStore]
Damage = Callable[[StateStore, Generation], None]


def dumped(state: Any) -> Callable[[Any], None]:
    """What `StateStore.write` takes to save `state`."""
    return lambda target: pickle.Pickler(target, 5).dump(state)


class StoreContract:
    """The promises of `n6_stateful.state.store.StateStore`."""

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """Makes one more store over one and the same place."""
        raise NotImplementedError

    @pytest.fixture
    def damage(self) -> Damage:
        """Changes what is stored of a generation, so that it is not what was saved."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, make_store: MakeStore) -> Iterator[StateStore]:
        """A store whose lock is held."""
        store = make_store()
        store.lock()
        yield store
        store.unlock()

    def states(self, store: StateStore) -> list[Any]:
        return [store.read(pickle.load, each)[0] for each in store.generations()]

    # Saving and reading

    def test_empty(self, store: StateStore) -> None:
        """At first there is nothing."""
        assert store.generations() == []
        assert store.set_aside_names() == []
        with pytest.raises(FileNotFoundError):
            store.read(pickle.load)

    def test_looking_makes_nothing(self, make_store: MakeStore) -> None:
        """Whoever only looks needs no lock and leaves no trace."""
        for _ in range(2):
            store = make_store()
            assert (store.generations(), store.set_aside_names(), store.holder()) == ([], [], None)

    @pytest.mark.parametrize(
        "state",
        [{"a": {1, 2}}, b"\n#n6-stateful 1 generation=", os.urandom(3_000_000)],
        ids=["small", "odd", "large"],
    )
    def test_comes_back(self, state: object, store: StateStore, make_store: MakeStore) -> None:
        """What was saved is read, by this store and by any other."""
        saved = store.write(dumped(state), 7)
        assert store.read(pickle.load) == (state, saved)
        assert make_store().read(pickle.load) == (state, saved)
        assert store.generations() == [saved]
        assert (len(saved.id), saved.number, saved.problem) == (32, 7, "")
        assert saved.size >= len(pickle.dumps(state))
        assert saved.where

    def test_previous_kept(self, store: StateStore) -> None:
        """The one before is kept, the current one is the first."""
        saved = [store.write(dumped(number), number) for number in (1, 2, 3)]
        kept = store.generations()
        assert [each.id for each in kept[:2]] == [saved[2].id, saved[1].id]
        assert self.states(store)[:2] == [3, 2]

    def test_previous_not_worth_keeping(self, store: StateStore) -> None:
        """A save that says so takes the current one's place, and the one before that stays."""
        first, second = (store.write(dumped(number), number) for number in (1, 2))
        for number in (3, 4, 5):
            saved = store.write(dumped(number), number, keep_previous=False)
            assert [each.id for each in store.generations()[:2]] == [saved.id, first.id]
        assert second.id not in [each.id for each in store.generations()]
        assert self.states(store)[:2] == [5, 1]

    def test_first_without_previous(self, store: StateStore) -> None:
        """Where there is none before, that makes no difference."""
        saved = store.write(dumped(1), 1, keep_previous=False)
        assert store.generations() == [saved]

    @pytest.mark.parametrize("keep_previous", [True, False])
    def test_dump_fails(self, keep_previous: bool, store: StateStore) -> None:
        """A dump that fails half way leaves everything as it was."""
        for number in (1, 2):
            store.write(dumped(number), number)
        before = store.generations()

        def failing(target: Any) -> None:
            target.write(b"half a pickle")
            raise KeyError("half way")

        with pytest.raises(KeyError, match="half way"):
            store.write(failing, 3, keep_previous=keep_previous)
        assert store.generations() == before
        assert self.states(store)[:2] == [2, 1]

    def test_prove_writable(self, store: StateStore) -> None:
        """To prove that a state can be saved saves none."""
        store.prove_writable()
        assert store.generations() == []
        store.write(dumped("x" * 100_000), 1)
        before = store.generations()
        store.prove_writable()
        assert store.generations() == before

    # What is wrong

    def test_load_fails(self, store: StateStore) -> None:
        """What `load` raises is told with the place; it does not make the state a broken one."""
        saved = store.write(dumped(1), 1)

        def failing(file: Any) -> None:
            raise RuntimeError("a mistake in a class")

        def refusing(file: Any) -> None:
            raise StateError("the class is not admitted")

        with pytest.raises(StateError, match="cannot be loaded: RuntimeError: a mistake") as told:
            store.read(failing)
        assert not isinstance(told.value, BrokenStateError)
        with pytest.raises(StateError, match="the class is not admitted") as told:
            store.read(refusing)
        assert str(told.value).startswith(f"{saved.where}: ")

    def test_broken(self, store: StateStore, damage: Damage) -> None:
        """What is not what was saved is found before it is loaded."""
        damage(store, store.write(dumped({"value": "good"}), 1))
        with pytest.raises(BrokenStateError):
            store.read(lambda file: pytest.fail("it was loaded"))

    def test_set_aside(self, store: StateStore, damage: Damage) -> None:
        """The one before takes the place of what is set aside; names tell where that is."""
        for number in (1, 2):
            store.write(dumped(number), number)
        damage(store, store.generations()[0])
        name = store.set_aside(store.generations()[0])
        assert store.set_aside_names() == [name]
        assert self.states(store) == [1]
        store.write(dumped(3), 3)
        assert self.states(store)[:2] == [3, 1]

    def test_both_set_aside(self, store: StateStore, damage: Damage) -> None:
        """The oldest first, all can be set aside, and none takes another's place there."""
        for number in (1, 2):
            store.write(dumped(number), number)
        for generation in store.generations()[:2]:
            damage(store, generation)
        for generation in reversed(store.generations()[:2]):
            store.set_aside(generation)
        assert store.generations() == []
        assert len(store.set_aside_names()) == 2

    # The lock

    def test_lock(self, make_store: MakeStore) -> None:
        """One at a time has it, and gives it back."""
        for _ in range(3):
            store, other = make_store(), make_store()
            store.lock()
            store.lock()  # that it is ours already is no error
            with pytest.raises(StateLockedError, match=rf"another run is in progress \(.*{os.getpid()}"):
                other.lock()
            assert str(os.getpid()) in (make_store().holder() or "")
            store.unlock()
            store.unlock()
            assert make_store().holder() is None
            other.lock()
            other.unlock()
