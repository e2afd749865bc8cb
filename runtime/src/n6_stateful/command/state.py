"""`state show`, `reset`, `restore`, `rewind`, `forget`, `export`, `import`, `edit` and `schema`.

Those that change the state take the lock, so they cannot race a run; they print what changes, and save a new
generation. Those that only look read what was saved last.
"""

from __future__ import annotations

import difflib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from pprint import pformat
from typing import Any

from n6_stateful.command import typed_json
from n6_stateful.command.failures import confirm
from n6_stateful.errors import N6StatefulError, PublishError, StateError, StateLockedError
from n6_stateful.health import counted, moved_aside
from n6_stateful.journal import schema as journal_schema

LONGEST_DIFF = 40  # lines


def show(collector: Any, args: Namespace) -> int:
    """Print the state, the generations that are kept, and journals that were moved aside."""
    journal, file = collector.journal, collector.state_path
    _note_a_run(collector)
    kept, aside = journal.generations(), [str(path) for path in moved_aside(journal)]
    state, current = collector.current_state()
    where = journal.where if current else str(file) if file and file.exists() else None
    if args.json:
        about = current._asdict() if current else {"number": None, "saved": None}
        about |= {"where": where, "state": typed_json.dump(state, show=True), "broken": aside}
        about["generations"] = [generation._asdict() for generation in kept]
        print(json.dumps(about if where else None, indent=2))
        return 0
    lines = [
        f"number {generation.number}  {generation.saved}  {generation.size:,} bytes  {journal.where}"
        for generation in kept
    ]
    lines += [f"broken, moved aside: {name}" for name in aside]
    if where:
        lines += ["" if current else f"the next run imports {file}", pformat(state, width=100)]
    else:
        lines.append(f"no state in {journal.where}")
    print(*lines, sep="\n")
    return 0


def reset(collector: Any, args: Namespace) -> int:
    """Save the default state."""
    before = _to_replace(collector)
    question = "The next run collects everything that the source still has. Begin again?"
    return _save(collector, before, collector.make_default_state(), args, question)


def restore(collector: Any, args: Namespace) -> int:
    """Save the state of an earlier generation."""
    before = _to_replace(collector)
    kept = collector.journal.generations()
    wanted = kept[1:2]
    if args.number:
        wanted = [generation for generation in kept if generation.number == args.number]
    if not wanted:
        which = f"generation {args.number}" if args.number else "earlier generation"
        raise N6StatefulError(f"no {which} is kept; nothing was changed; `state show` lists them")
    state = collector.read_generation(wanted[0].number)
    question = f"What was collected since {wanted[0].saved} is collected again. Go back to that state?"
    return _save(collector, before, state, args, question)


def rewind(collector: Any, args: Namespace) -> int:
    """Save a state from which the next run collects again what came after a time or a cursor."""
    state, before = _locked(collector)
    if hasattr(collector, "rewound"):
        state = collector.rewound(state, args.to)
    elif isinstance(state, dict) and isinstance(state.get("last_utc"), str | datetime | float | int):
        state["last_utc"] = _as_type_of(state["last_utc"], args.to)
    else:
        raise _no_hook(collector, "rewound(self, state, to)")
    return _save(collector, before, state, args, f"Collect again from {args.to} on?")


def forget(collector: Any, args: Namespace) -> int:
    """Save a state in which one item is not known, so that the next run collects it again."""
    state, before = _locked(collector)
    if not hasattr(collector, "without_item"):
        raise _no_hook(collector, "without_item(self, state, key)")
    state = collector.without_item(state, args.key)
    return _save(collector, before, state, args, f"Collect {args.key} again?")


def export(collector: Any, args: Namespace) -> int:
    """Write the state to a file, as JSON if its name ends in `.json`, else as a plain pickle."""
    _note_a_run(collector)
    if waiting := collector.journal.backlog().messages:
        count = counted(waiting, "message")
        raise PublishError(
            f"{count} of this state still in the outbox; nothing was exported; `outbox deliver` first"
        )
    state, generation = collector.current_state()
    if generation is None and not (collector.state_path and collector.state_path.exists()):
        raise StateError(f"there is no state yet in {collector.journal.where}; nothing was exported")
    protocol = max(3, collector.pickle_protocol)  # those below would be taken for Python 2's
    data = _as_json(state) if args.file.endswith(".json") else pickle.dumps(state, protocol)
    if args.file == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return 0
    with open(args.file, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(data)
    print(f"exported the state to {args.file} ({len(data):,} bytes)")
    return 0


def import_(collector: Any, args: Namespace) -> int:
    """Save what is in a file: JSON, a pickle, or a state file."""
    before = _to_replace(collector)
    data = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
    if args.file.endswith(".json"):
        state = _from_json(data, args.file)
    else:
        try:
            state = collector.read_file(data, args.file)
        except StateError as exc:
            text = str(exc).removeprefix(f"{args.file}: ")
            raise StateError(f"{args.file}: {text}; nothing was changed") from exc
    return _save(collector, before, state, args, "Import this state?")


def edit(collector: Any, args: Namespace) -> int:
    """Open the state as JSON in `$EDITOR`, and save what comes back; a text that cannot be used is kept."""
    state, before = _locked(collector)
    text = _as_json(state)
    file = Path(tempfile.mkdtemp(prefix="n6-state-"), "state.json")  # editors leave files beside it
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    file.write_bytes(text)
    if code := subprocess.call([*editor.split(), str(file)]):
        shutil.rmtree(file.parent)
        raise StateError(f"{editor} ended with {code}; nothing was changed")
    edited = file.read_bytes()
    try:
        _save(collector, before, state if edited == text else _from_json(edited, "the edited state"))
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
        print(
            f"note: a run is in progress ({holder}); this is the state that was saved last", file=sys.stderr
        )


def _locked(collector: Any) -> tuple[Any, str]:
    """The state, and the same as text, once the lock is held."""
    collector.open_journal()
    state, _ = collector.current_state()
    return state, pformat(state, width=100)


def _to_replace(collector: Any) -> str:
    """The state that is about to be replaced as text, once the lock is held; it may be unusable."""
    try:
        return _locked(collector)[1]
    except StateLockedError:
        raise
    except StateError as exc:
        collector.journal.lock()
        return f"unusable: {exc}"


def _save(collector: Any, before: str, state: Any, args: Namespace | None = None, question: str = "") -> int:
    """Print what changes, ask if there are `args`, and save a new generation."""
    after = pformat(state, width=100)
    diff = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))
    diff = [line for line in diff[2:] if line[0] in "+-"]  # without file names and positions
    if not diff and collector.journal.generations():
        print("nothing was changed")
        return 0
    more = [f"... and {len(diff) - LONGEST_DIFF:,} more lines"] if len(diff) > LONGEST_DIFF else []
    print(*diff[:LONGEST_DIFF], *more, sep="\n")
    if args:
        confirm(args, question)
    print(f"saved the state {collector.save_as_new(state)} in {collector.journal.where}")
    return 0


def _no_hook(collector: Any, hook: str) -> N6StatefulError:
    name = type(collector).__name__
    return N6StatefulError(f"{name} does not say how; nothing was changed; write {hook}, or `state edit`")


def _as_type_of(present: Any, to: str) -> Any:
    """`to`, a time, as the type that the state has."""
    if isinstance(present, int | float) and to.isdecimal():
        return type(present)(to)
    try:
        moment = datetime.fromisoformat(to)
    except ValueError as exc:
        raise N6StatefulError(f"{to}: not a time in ISO 8601; nothing was changed") from exc
    if isinstance(present, str):
        return to
    if not moment.tzinfo:
        moment = moment.replace(tzinfo=UTC)
    if isinstance(present, datetime):
        return moment.astimezone(present.tzinfo or UTC).replace(tzinfo=present.tzinfo)
    return type(present)(moment.timestamp())


def _as_json(state: Any) -> bytes:
    return (json.dumps(typed_json.dump(state), indent=2) + "\n").encode()


def _from_json(data: bytes, name: str) -> Any:
    try:
        state = typed_json.load(json.loads(data))
    except (ValueError, RecursionError) as exc:
        raise StateError(f"{name}: not a state as JSON: {exc}; nothing was changed") from exc
    return state
