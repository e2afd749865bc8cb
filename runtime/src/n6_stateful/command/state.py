"""`state show`, `reset`, `restore`, `export`, `import`, `edit` and `schema`.

Those that change the state take its lock, so they cannot race a run. Those that only look say so when a run
is in progress; what they read is whole all the same, since a save replaces the state in one step.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import pprint
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n6_stateful import typed_json
from n6_stateful.command.confirm import confirm
from n6_stateful.command.state_look import look
from n6_stateful.errors import ConfigError, N6StatefulError, StateError, StateLockedError
from n6_stateful.extras import needs_extra
from n6_stateful.state.file import FileStore
from n6_stateful.state.mixin import CollectorWithStateMixin
from n6_stateful.state.store import BrokenStateError, Generation, StateStore

SHORTEST_ID = 4  # what is shorter is a number

if TYPE_CHECKING:
    from argparse import Namespace

    from n6_stateful.collector import AbstractBaseCollector


def show(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Print the state, even if its classes cannot be imported any more, and list the generations that are
    kept and the broken ones that were set aside."""
    collector = _collector(collector_class)
    store = collector.state_store
    _note_a_run(store)
    kept, aside = store.generations(), store.set_aside_names()
    if not kept and not aside:
        print("null" if args.json else f"no state yet in {store.where}")
        return 0
    problems = [_problem(store, each) for each in kept]
    kept = [each._replace(problem=str(problem or "")) for each, problem in zip(kept, problems, strict=True)]
    state = [] if problems[:1] != [None] else [store.read(look)[0]]
    if args.json:
        told = {"state": typed_json.dump(state[0], to_look_at=True)} if state else {}
        generations = [_about(each) for each in kept]
        current = generations[0] if kept else {}
        print(json.dumps({**current, **told, "generations": generations, "broken": aside}, indent=2))
    else:
        for each in kept:
            print(_line(each))
        for name in aside:
            print(f"broken, set aside: {name}")
        if state:
            print()
            try:
                pprint.pp(state[0], width=100)
            except RecursionError:
                print("(too deep to be shown)")
    if kept and problems[0]:
        raise problems[0]
    return 0


def reset(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Save the default state as a new generation."""
    collector = _locked(collector_class)
    confirm(args, "Everything that the source still shows will be taken again. Start from the default state?")
    _save(collector, collector.make_default_state())
    return 0


def restore(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Save an earlier generation as a new one."""
    collector = _locked(collector_class)
    wanted, kept = args.generation, collector.state_store.generations()

    def is_wanted(each: Generation) -> bool:
        return each.id.startswith(wanted) if len(wanted) >= SHORTEST_ID else str(each.number) == wanted

    found = list(filter(is_wanted, kept)) if wanted else kept[1:2]
    if len(found) != 1:
        raise N6StatefulError(
            ("more than one" if found else "no")
            + (f" generation has the id or number {wanted}" if wanted else " earlier generation is kept")
            + "; nothing was changed; `state show` lists them"
        )
    with _or_nothing_was_changed():
        state, generation = collector.read_state(found[0])
    saved = generation.saved or "then"
    confirm(args, f"What was taken since {saved} will be taken again. Go back to that state?")
    _save(collector, state)
    return 0


def export(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Write the state to a file, as JSON if its name ends in `.json`, else as a plain pickle."""
    collector = _collector(collector_class)
    _note_a_run(collector.state_store)
    try:
        state, _ = collector.read_state()
    except FileNotFoundError:
        raise StateError(f"there is no state yet in {collector.state_store.where}") from None
    if args.file.endswith(".json"):
        data = _as_json(state)
    else:
        # An older protocol, without our mark before it, could be taken for a pickle of Python 2.
        protocol = 3 if collector.pickle_protocol in (0, 1, 2) else collector.pickle_protocol
        data = pickle.dumps(state, protocol)
    if args.file == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return 0
    try:
        descriptor = os.open(args.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as exc:
        raise StateError(f"{args.file}: cannot be written: {exc.strerror}") from exc
    print(f"exported the state to {args.file} ({len(data):,} bytes)")
    return 0


def import_(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Save what is in a file as a new generation: JSON, a text of n6's oldest mixins, or a pickle."""
    collector = _locked(collector_class)
    with _or_nothing_was_changed():
        try:
            data = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
        except OSError as exc:
            raise StateError(f"{args.file}: cannot be read: {exc.strerror}") from exc
        state = _imported(collector, args.file, data)
    if args.file != "-":
        kept = collector.state_store.generations()[:1]
        replaced = "".join(f" in place of the one of {each.saved or each.where}" for each in kept)
        shown = pprint.pformat(state, width=100, compact=True)[:2000]
        confirm(args, f"Take over this state{replaced}?\n{shown}\n")
    _save(collector, state)
    return 0


def edit(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Open the state as JSON in `$EDITOR`, and save what comes back as a new generation."""
    import shutil
    import tempfile

    collector = _locked(collector_class)
    try:
        state, _ = collector.read_state()
    except FileNotFoundError:
        state = collector.make_default_state()
    before = _as_json(state)
    # Editors may replace the file, and leave others beside it.
    directory = tempfile.mkdtemp(prefix="n6-state-")
    file = Path(directory, "state.json")
    try:
        file.write_bytes(before)
        _call_editor(file)
        after = file.read_bytes()
    except BaseException as exc:
        shutil.rmtree(directory)
        if isinstance(exc, OSError):
            raise StateError(f"nothing was changed: what was edited is gone: {exc.strerror}") from exc
        raise
    if after == before:
        print("nothing was changed")
    else:
        try:
            with _or_nothing_was_changed():
                edited = _from_json(after, "what was edited", like=state)
            _save(collector, edited)
        except StateError as exc:
            raise StateError(f"{exc}; it is kept: mend it, then `state import {file}`") from exc
    shutil.rmtree(directory)
    return 0


def schema(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Print the SQL that makes the database store's table; the database is not asked."""
    store = None if args.engine else _collector(collector_class).state_store
    if isinstance(store, FileStore):
        raise ConfigError(
            f"the state is a file, {store.where}; set [state] url to keep it in a database, or name an engine"
        )
    try:
        from n6_stateful.state.database import ENGINES, GRANT, DatabaseStore
    except ImportError as exc:
        raise needs_extra("state schema", "sql", exc) from exc
    engine = store.engine if isinstance(store, DatabaseStore) else ENGINES[args.engine]
    print(f"{engine.schema};\n-- for a user of the collectors' own: {GRANT} ...;")
    return 0


def _call_editor(file: Path) -> None:
    import shlex
    import subprocess

    wanted = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with _or_nothing_was_changed():
        try:
            code = subprocess.call([*shlex.split(wanted), str(file)])
        except (OSError, ValueError) as exc:
            raise StateError(f"{wanted}: cannot be started: {exc}; set EDITOR") from exc
        if code:
            raise StateError(f"{wanted} ended with {code}")


def _collector(collector_class: type[AbstractBaseCollector]) -> CollectorWithStateMixin:
    collector = collector_class(**collector_class.get_script_init_kwargs())
    if not isinstance(collector, CollectorWithStateMixin):
        raise N6StatefulError(f"{collector_class.__name__} keeps no state")
    return collector


def _locked(collector_class: type[AbstractBaseCollector]) -> CollectorWithStateMixin:
    collector = _collector(collector_class)
    with _or_nothing_was_changed():
        collector.state_store.lock()
    return collector


@contextmanager
def _or_nothing_was_changed() -> Iterator[None]:
    try:
        yield
    except StateLockedError:
        raise
    except StateError as exc:
        raise StateError(f"nothing was changed: {exc}") from exc


def _note_a_run(store: StateStore) -> None:
    if holder := store.holder():
        print(
            f"note: a run is in progress ({holder}); this is the state as it was saved last", file=sys.stderr
        )


def _about(generation: Generation) -> dict[str, Any]:
    about = generation._asdict()
    return {"generation": about.pop("id"), **about}


def _line(generation: Generation) -> str:
    number = f"number {generation.number}" if generation.id else "plain pickle"
    columns = (generation.id, number, generation.saved, f"{generation.size:,} bytes", generation.where)
    if generation.problem:
        return f"cannot be used: {generation.problem}"
    return "  ".join(filter(None, columns))


def _problem(store: StateStore, generation: Generation) -> StateError | None:
    """What is wrong with a generation."""
    try:
        # A checksum is enough; what has none is a pickle if it can be read as one.
        store.read((lambda file: None) if generation.id else look, generation)
    except StateError as exc:
        return exc
    return None


def _save(collector: CollectorWithStateMixin, state: Any) -> None:
    store = collector.state_store
    # As `load_state` does it: else a broken state would take the place of the good one before it.
    kept = store.generations()
    for broken in reversed([each for each in kept if isinstance(_problem(store, each), BrokenStateError)]):
        print(f"{broken.where} is broken: it was moved to {store.set_aside(broken)}")
    newest = max((each.number for each in store.generations()), default=0)
    collector.save_as_new(state, newest + 1)
    print(f"saved generation {collector.state_generation} in {store.where}")


def _imported(collector: CollectorWithStateMixin, name: str, data: bytes) -> Any:
    if name.endswith(".json"):
        return _from_json(data, name)
    if name.endswith(".txt"):
        # n6's oldest mixins wrote str(state) there.
        return data.decode("utf-8", "surrogateescape")
    try:
        return collector.import_state(name, io.BytesIO(data))
    except BrokenStateError as exc:
        raise StateError(f"{exc}; the name of a JSON file must end in .json, that of a text in .txt") from exc


def _as_json(state: Any) -> bytes:
    return (json.dumps(typed_json.dump(state), indent=2) + "\n").encode()


def _from_json(data: bytes, name: str, like: Any = None) -> Any:
    try:
        state = typed_json.load(json.loads(data.decode()))
    except (ValueError, RecursionError) as exc:
        raise StateError(f"{name}: is not a state in JSON: {exc}") from exc
    if like is not None and type(state) is not type(like):
        raise StateError(f"{name}: is a {type(state).__name__}, where it was a {type(like).__name__}")
    return state
