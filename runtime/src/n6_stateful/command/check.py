"""`check`: everything that can be tried without publishing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from n6_stateful.collector import BaseCollector
from n6_stateful.errors import N6StatefulError, StateError
from n6_stateful.publishing import QueuedBase
from n6_stateful.state.file import FileStore
from n6_stateful.state.mixin import CollectorWithStateMixin
from n6_stateful.state.store import BrokenStateError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from n6_stateful.collector import AbstractBaseCollector


def check(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Try the configuration, the state, the output and the metrics, and print a line for each.

    Returns:
        0, or the exit code of the first thing that fails; the others are tried all the same.
    """
    collector = collector_class(**collector_class.get_script_init_kwargs())
    print("configuration: ok")
    codes = []
    if isinstance(collector, CollectorWithStateMixin):
        codes.append(_try("state", lambda: _state(collector)))
        collector.close_state()
    if isinstance(collector, QueuedBase):
        codes.append(_try("output", lambda: _output(collector)))
    where = isinstance(collector, BaseCollector) and collector.config_full["monitoring"]["textfile_dir"]
    if where:
        from n6_stateful.record.metrics import try_directory

        codes.append(_try("metrics", lambda: try_directory(Path(where).expanduser())))
    return next(filter(None, codes), 0)


def _try(name: str, look: Callable[[], str]) -> int:
    try:
        print(f"{name}: ok, {look()}")
    except N6StatefulError as exc:
        print(f"{name}: {exc}")
        return exc.exit_code
    return 0


def _state(collector: CollectorWithStateMixin) -> str:
    store = collector.state_store
    if isinstance(store, FileStore) and not os.access(store.path.parent, os.F_OK):
        # Whoever tries is not always who runs the collector: root would make it its own.
        return _none_yet(store.path.parent)
    # Not load_state, which would set a broken state aside, and leave the next run nothing to tell.
    store.lock()
    store.prove_writable()
    try:
        state, generation = collector.read_state()
        collector.check_state(state)
    except FileNotFoundError:
        collector.check_left_behind()
        return "none saved yet"
    except BrokenStateError as exc:
        raise StateError(
            f"{exc}; it was left there; `state show` lists what the next run goes on with"
        ) from exc
    return str(generation)


def _none_yet(directory: Path) -> str:
    parent = next(each for each in directory.parents if os.access(each, os.F_OK))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise StateError(f"{directory}: cannot be made by this user; nothing was tried there")
    return f"none saved yet; the first run makes {directory}"


def _output(collector: QueuedBase) -> str:
    collector.try_output()
    untried = " (whether its exchange has a queue is not tried)" if "amqp" in collector.output_where else ""
    return f"{collector.output_where}{untried}"
