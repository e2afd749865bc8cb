"""`state show`, `reset`, `restore`, `rewind`, `forget`, `export`, `import`, `edit` and `schema`.

Those that change the state take the lock, so they cannot race a run; they print what changes, and save a new
generation. Those that only look read what was saved last.

As JSON a state is what it is, but for the marks of `FORMS`, `{"$set": [1, 2]}`, and `{"$pickle": base64}` for
all that has neither.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import datetime
from difflib import unified_diff
from pathlib import Path
from pprint import pformat
from typing import Any

from n6_stateful.command import confirm
from n6_stateful.errors import N6StatefulError, PublishError, StateError, StateLockedError
from n6_stateful.health import counted, moved_aside
from n6_stateful.journal import schema as journal_schema

LONGEST_DIFF = 40  # lines
# For each type: its mark, what is written, and how that is read.
FORMS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    set: ("$set", lambda items: sorted(items, key=repr), set),
    tuple: ("$tuple", list, tuple),
    dict: ("$dict", lambda items: [list(pair) for pair in items.items()], dict),
    bytes: ("$bytes", lambda data: b64encode(data).decode(), lambda text: b64decode(text, validate=True)),
    datetime: ("$datetime", datetime.isoformat, datetime.fromisoformat),
}
LONGEST_BYTES = 64  # to be shown
MARKS = {mark: read for mark, _, read in FORMS.values()}


def show(collector: Any, args: Namespace) -> int:
    """Print the state, the generations that are kept, and journals that were moved aside."""
    journal, file = collector.journal, collector.state_path
    _note_a_run(collector)
    kept, aside = journal.generations(), [str(path) for path in moved_aside(journal)]
    state, current = collector.current_state()
    where = journal.where if current else str(file) if file and file.exists() else None
    if args.json:
        about = current._asdict() if current else {"number": None, "saved": None}
        about |= {"where": where, "state": _plain(state), "broken": aside}
        about["generations"] = [generation._asdict() for generation in kept]
        print(json.dumps(about if where else None, indent=2))
        return 0
    for number, _, saved, _, size in kept:
        print(f"number {number}  {saved}  {size:,} bytes  {journal.where}")
    lines = [f"broken, moved aside: {name}" for name in aside]
    shown = ["" if current else f"the next run imports {file}", pformat(_shortened(state), width=100)]
    print(*lines, *(shown if where else [f"no state in {journal.where}"]), sep="\n")
    return 0


def _shortened(state: Any) -> Any:
    """`state` with the beginning of long bytes only, of which the marks of items are."""
    if isinstance(state, dict):
        return {key: _shortened(value) for key, value in state.items()}
    is_long = isinstance(state, bytes) and len(state) > LONGEST_BYTES
    return state[:LONGEST_BYTES] + b"..." if is_long else state


def reset(collector: Any, args: Namespace) -> int:
    """Save the default state."""
    _, before = _locked(collector, is_needed=False)
    question = "The next run collects everything that the source still has. Begin again?"
    return _save(collector, before, collector.make_default_state(), args, question)


def restore(collector: Any, args: Namespace) -> int:
    """Save the state of an earlier generation."""
    _, before = _locked(collector, is_needed=False)
    kept = collector.journal.generations()
    chosen = [generation for generation in kept if generation.number == args.number]
    for generation in chosen if args.number else kept[1:2]:
        state = collector.read_generation(generation.number)
        question = f"What was collected since {generation.saved} is collected again. Go back to that state?"
        return _save(collector, before, state, args, question)
    which = f"generation {args.number}" if args.number else "earlier generation"
    raise N6StatefulError(f"no {which} is kept; nothing was changed; `state show` lists them")


def rewind(collector: Any, args: Namespace) -> int:
    """Save a state from which the next run collects again what came after a time or a cursor."""
    state, before = _locked(collector)
    if hasattr(collector, "rewound"):
        state = collector.rewound(state, args.to)
    elif isinstance(state, dict) and isinstance(state.get("last_utc"), str):
        try:
            datetime.fromisoformat(args.to)
        except ValueError as exc:
            raise N6StatefulError(f"{args.to}: not a time in ISO 8601; nothing was changed") from exc
        state["last_utc"] = args.to
    else:
        problem = f"{type(collector).__name__} does not say how; nothing was changed"
        raise N6StatefulError(f"{problem}; write rewound(self, state, to), or `state edit`")
    return _save(collector, before, state, args, f"Collect again from {args.to} on?")


def forget(collector: Any, args: Namespace) -> int:
    """Save a state in which one item is not known, so that the next run collects it again."""
    state, before = _locked(collector)
    question = f"Collect {args.key} again?"
    return _save(collector, before, collector.without_item(state, args.key), args, question)


def export(collector: Any, args: Namespace) -> int:
    """Write the state to a file, as JSON if its name ends in `.json`, else as a plain pickle."""
    _note_a_run(collector)
    if waiting := collector.journal.backlog().messages:
        problem = f"{counted(waiting, 'message')} of this state still in the outbox"
        raise PublishError(f"{problem}; nothing was exported; `outbox deliver` first")
    state, generation = collector.current_state()
    if generation is None and not (collector.state_path and collector.state_path.exists()):
        raise StateError(f"there is no state yet in {collector.journal.where}; nothing was exported")
    protocol = max(3, collector.pickle_protocol)  # those below would be taken for Python 2's
    data = _as_json(state) if args.file.endswith(".json") else pickle.dumps(state, protocol)
    if args.file == "-":
        sys.stdout.buffer.write(data)
        return 0
    with open(args.file, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(data)
    print(f"exported the state to {args.file} ({len(data):,} bytes)")
    return 0


def import_(collector: Any, args: Namespace) -> int:
    """Save what is in a file: JSON, a pickle, or a state file."""
    _, before = _locked(collector, is_needed=False)
    data = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
    return _save(collector, before, _read(collector, data, args.file), args, "Import this state?")


def edit(collector: Any, args: Namespace) -> int:
    """Open the state as JSON in `$EDITOR`, and import what comes back; a text that cannot be used is kept."""
    state, _ = _locked(collector)
    file = Path(tempfile.mkdtemp(prefix="n6-state-"), "state.json")  # editors leave files beside it
    file.write_bytes(_as_json(state))
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    if code := subprocess.call([*editor.split(), str(file)]):
        shutil.rmtree(file.parent)
        raise StateError(f"{editor} ended with {code}; nothing was changed")
    args.file, args.yes = str(file), True
    try:
        import_(collector, args)
    except StateError as exc:
        raise StateError(f"{exc}; the text is kept: fix it, then `state import {file}`") from exc
    shutil.rmtree(file.parent)
    return 0


def schema(collector: Any, args: Namespace) -> int:
    """Print the SQL that makes the tables of a journal in a database; the database is not asked."""
    url = collector.config_full["journal"]["url"]
    print(journal_schema(args.engine or url.partition(":")[0]), end="")
    return 0


def _note_a_run(collector: Any) -> None:
    if holder := collector.journal.holder():
        print(f"note: a run is in progress ({holder}); this is the state saved last", file=sys.stderr)


def _locked(collector: Any, *, is_needed: bool = True) -> tuple[Any, str]:
    """The state, and the same as text, once the lock is held; if it is not needed, it may be unusable."""
    try:
        collector.open_journal()
        state, _ = collector.current_state()
    except StateError as exc:
        if is_needed or isinstance(exc, StateLockedError):
            raise
        collector.journal.lock()
        return None, f"unusable: {exc}"
    return state, pformat(state, width=100)


def _save(collector: Any, before: str, state: Any, args: Namespace, question: str) -> int:
    """Print what changes, ask, and save a new generation."""
    after = pformat(state, width=100)
    diff = unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    lines = [line for line in diff if line[0] in "+-"][2:]  # without file names and positions
    if not lines and collector.journal.generations():
        print("nothing was changed")
        return 0
    if len(lines) > LONGEST_DIFF:
        lines[LONGEST_DIFF:] = [f"... and {len(lines) - LONGEST_DIFF:,} more lines"]
    print(*lines, sep="\n")
    confirm(args, question)
    print(f"saved the state {collector.save_as_new(state)} in {collector.journal.where}")
    return 0


def _as_json(state: Any) -> bytes:
    return (json.dumps(_plain(state), indent=2) + "\n").encode()


def _plain(state: Any) -> Any:
    """`state` as the module `json` writes it."""
    if state is None or type(state) in (bool, int, float, str):
        return state
    if type(state) is list:
        return [_plain(item) for item in state]
    if type(state) is dict and all(type(key) is str and key[:1] != "$" for key in state):
        return {key: _plain(item) for key, item in state.items()}
    if type(state) not in FORMS or getattr(state, "fold", False):  # ISO 8601 does not know `fold`
        return {"$pickle": b64encode(pickle.dumps(state)).decode()}
    mark, write, _ = FORMS[type(state)]
    return {mark: _plain(write(state))}


def _read(collector: Any, data: bytes, name: str) -> Any:
    """The state in a file of that name."""
    if not name.endswith(".json"):
        return collector.read_file(data, name)

    def read_marked(written: dict[str, Any]) -> Any:
        if not any(key.startswith("$") for key in written):
            return written
        ((mark, value),) = written.items()
        return collector.read_file(b64decode(value), name) if mark == "$pickle" else MARKS[mark](value)

    try:
        return json.loads(data, object_hook=read_marked)
    except Exception as exc:  # a text that somebody has edited may raise anything
        problem = f"{type(exc).__name__}: {exc}"
        raise StateError(f"{name}: not a state as JSON: {problem}; nothing was changed") from exc
