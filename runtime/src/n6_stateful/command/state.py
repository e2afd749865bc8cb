"""`state show`, `history`, `reset`, `restore`, `export`, `import` and `edit`.

Those that change the state take its lock, so they cannot race a run. Those that only look say so when a run
is on its way; what they read is whole all the same, since a save replaces the file in one step.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import pprint
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n6_stateful.command import state_json
from n6_stateful.command.confirm import confirm
from n6_stateful.errors import N6StatefulError, StateError
from n6_stateful.state import file as statefile
from n6_stateful.state.mixin import CollectorWithStateMixin
from n6_stateful.state.pickles import look

if TYPE_CHECKING:
    from argparse import Namespace

    from n6_stateful.collector import AbstractBaseCollector
    from n6_stateful.state.file import Footer


def show(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Print the state, even if its classes cannot be imported any more."""
    collector = _collector(collector_class)
    path = collector.state_file.path
    _note_a_run(collector)
    try:
        state, footer = collector.state_file.read(look)
    except FileNotFoundError:
        print("null" if args.json else f"no state yet in {path}")
        return 0
    about = _about(path, footer)
    if args.json:
        print(json.dumps({**about, "state": state_json.dump(state, to_look_at=True)}, indent=2))
        return 0
    for name, value in about.items():
        print(f"{name:11} {_shown(name, value)}")
    print()
    pprint.pp(state, width=100)
    return 0


def history(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """List the generations that are there, the one in force first, and the broken files."""
    collector = _collector(collector_class)
    _note_a_run(collector)
    found = [_checked(collector, path, footer) for path, footer in _generations(collector)]
    broken = sorted(collector.state_file.path.parent.glob(f"{collector.state_file.path.name}*.broken-*"))
    if args.json:
        print(json.dumps({"generations": found, "broken": [str(path) for path in broken]}, indent=2))
        return 0
    for about in found:
        columns = ("generation", "number", "saved", "size", "file")
        print("  ".join(_shown(name, about[name]) for name in columns))
    for path in broken:
        print(f"broken  {path}")
    if not found and not broken:
        print(f"no state yet in {collector.state_file.path}")
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
    wanted = args.generation or ""
    candidates = [
        (path, footer)
        for path, footer in _generations(collector)
        if (footer and footer.generation.startswith(wanted) if wanted else path != collector.state_file.path)
    ]
    if len(candidates) != 1:
        raise N6StatefulError(
            f"{'no' if not candidates else 'more than one'} earlier generation"
            + (f" begins with {wanted}" if wanted else " is kept")
            + "; nothing was changed; see `state history`"
        )
    ((path, footer),) = candidates
    state, _ = collector.state_file.read(collector.load_pickle, path)
    about = _about(path, footer)
    confirm(args, f"What was taken since {about['saved']} will be taken again. Go back to that state?")
    _save(collector, state)
    return 0


def export(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Write the state to a file, as JSON if its name ends in `.json`, else as a plain pickle."""
    collector = _collector(collector_class)
    _note_a_run(collector)
    try:
        state, _ = collector.state_file.read(collector.load_pickle)
    except FileNotFoundError:
        raise StateError(f"there is no state yet in {collector.state_file.path}") from None
    if args.file.endswith(".json"):
        data = (json.dumps(state_json.dump(state), indent=2) + "\n").encode()
    else:
        # What has no mark and an older protocol would be taken for a pickle of Python 2.
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
    try:
        data = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
    except OSError as exc:
        raise StateError(f"{args.file}: cannot be read: {exc.strerror}; nothing was changed") from exc
    state = _imported(collector, args.file, data)
    if args.file != "-":
        confirm(args, f"Take over this state?\n{pprint.pformat(state, width=100, compact=True)[:2000]}\n")
    _save(collector, state)
    return 0


def edit(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Open the state as JSON in `$EDITOR`, and save what comes back as a new generation."""
    import shutil
    import tempfile

    collector = _locked(collector_class)
    try:
        state, _ = collector.state_file.read(collector.load_pickle)
    except FileNotFoundError:
        state = collector.make_default_state()
    before = json.dumps(state_json.dump(state), indent=2) + "\n"
    # Editors may replace the file, and leave others beside it.
    directory = tempfile.mkdtemp(prefix="n6-state-")
    file = Path(directory, "state.json")
    try:
        file.write_text(before, encoding="utf-8")
        _call_editor(file)
        after = file.read_bytes()
    except BaseException as exc:
        shutil.rmtree(directory)
        if isinstance(exc, OSError):
            raise StateError(f"what was edited is not there: {exc.strerror}; nothing was changed") from exc
        raise
    if after == before.encode():
        print("nothing was changed")
    else:
        try:
            _save(collector, _from_json(after, "what was edited"))
        except StateError as exc:
            raise StateError(f"{exc}; it is kept: mend it, then `state import {file}`") from exc
    shutil.rmtree(directory)
    return 0


def _call_editor(file: Path) -> None:
    import shlex
    import subprocess

    wanted = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        code = subprocess.call([*shlex.split(wanted), str(file)])
    except (OSError, ValueError) as exc:
        raise StateError(f"{wanted}: cannot be started: {exc}; nothing was changed; set EDITOR") from exc
    if code:
        raise StateError(f"{wanted} ended with {code}; nothing was changed")


def _collector(collector_class: type[AbstractBaseCollector]) -> CollectorWithStateMixin:
    collector = collector_class(**collector_class.get_script_init_kwargs())
    if not isinstance(collector, CollectorWithStateMixin):
        raise N6StatefulError(
            f"{collector_class.__name__} keeps no state (it has no CollectorWithStateMixin)"
        )
    return collector


def _locked(collector_class: type[AbstractBaseCollector]) -> CollectorWithStateMixin:
    collector = _collector(collector_class)
    collector.state_file.lock()
    return collector


def _note_a_run(collector: CollectorWithStateMixin) -> None:
    holder = collector.state_file.holder()
    if holder:
        print(
            f"note: another run is on its way ({holder}); this is the state as it was saved last",
            file=sys.stderr,
        )


def _generations(collector: CollectorWithStateMixin) -> list[tuple[Path, Footer | None]]:
    files = (collector.state_file.path, collector.state_file.previous)
    return [(path, collector.state_file.peek(path)) for path in files if path.exists()]


def _about(path: Path, footer: Footer | None) -> dict[str, Any]:
    return {
        "file": str(path),
        "size": path.stat().st_size,
        "generation": footer.generation if footer else "none (a plain pickle, as n6 writes them)",
        "number": footer.number if footer else 0,
        "saved": footer.saved if footer else "unknown",
    }


def _shown(name: str, value: Any) -> str:
    return f"{value:,} bytes" if name == "size" else str(value)


def _checked(collector: CollectorWithStateMixin, path: Path, footer: Footer | None) -> dict[str, Any]:
    about = _about(path, footer)
    try:
        _read_through(collector.state_file, path)
    except StateError as exc:
        about["generation"] = f"cannot be used: {str(exc).removeprefix(f'{path}: ')}"
    return about


def _read_through(state_file: statefile.StateFile, path: Path) -> None:
    # What has a footer is checked by that; what has none is a pickle if it can be read as one.
    state_file.read((lambda file: None) if state_file.peek(path) else look, path)


def _save(collector: CollectorWithStateMixin, state: Any) -> None:
    _set_broken_aside(collector.state_file)
    in_force = collector.state_file.peek(collector.state_file.path)
    collector.save_as_new(state, in_force.number + 1 if in_force else 1)
    print(f"saved generation {collector.state_generation} in {collector.state_file.path}")


def _set_broken_aside(state_file: statefile.StateFile) -> None:
    """As `load_state` does it: else a broken file would take the place of the good one before it."""
    path, previous = state_file.path, state_file.previous
    broken = [each for each in (path, previous) if _is_broken(state_file, each)]
    for each in broken:
        instead = previous if broken == [path] and previous.exists() else None
        print(f"{each} is broken: it was moved to {state_file.set_aside(each, instead)}")


def _is_broken(state_file: statefile.StateFile, path: Path) -> bool:
    try:
        _read_through(state_file, path)
    except statefile.BrokenStateError:
        return True
    except (FileNotFoundError, StateError):
        return False
    return False


def _imported(collector: CollectorWithStateMixin, name: str, data: bytes) -> Any:
    if name.endswith(".json"):
        return _from_json(data, name)
    if name.endswith(".txt"):
        # n6's oldest mixins wrote str(state) there.
        return data.decode("utf-8", "surrogateescape")
    try:
        state, _ = statefile.read(
            Path(name), io.BytesIO(data), lambda file: collector.load_pickle(file, name)
        )
    except statefile.BrokenStateError as exc:
        raise StateError(
            f"{exc}; nothing was changed; the name of a JSON file has to end in .json, that of a text in .txt"
        ) from exc
    return state


def _from_json(data: bytes, name: str) -> Any:
    try:
        return state_json.load(json.loads(data.decode()))
    except (ValueError, RecursionError) as exc:
        raise StateError(f"{name}: is no state in JSON: {exc}; nothing was changed") from exc
