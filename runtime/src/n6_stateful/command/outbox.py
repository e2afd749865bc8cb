"""`outbox list`, `show`, `deliver` and `drop`."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from itertools import islice
from typing import Any

from n6_stateful.command import confirm
from n6_stateful.errors import ConfigError, N6StatefulError
from n6_stateful.health import counted, data_size, printable
from n6_stateful.journal import Journal, Waiting


def list_(collector: Any, args: Namespace) -> int:
    """Print a line for each message that waits, the refused ones last, and a line with the sum."""
    journal: Journal = collector.journal
    backlog = journal.backlog()
    lines = [(_json if args.json else _line)(waiting) for waiting in islice(journal.waiting(), args.limit)]
    if not args.json:
        hidden = backlog.messages - len(lines)
        more = f", {hidden:,} of them not shown" if hidden else ""
        count = counted(backlog.messages, "message")
        lines.append(f"{count} ({data_size(backlog.bytes)}) in {journal.where}{more}")
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def show(collector: Any, args: Namespace) -> int:
    """Write one message's body, as it is, to standard output, and the rest to standard error."""
    for waiting in collector.journal.waiting():
        if waiting.id == args.id:
            print(_json(waiting, indent=2), file=sys.stderr)
            sys.stdout.buffer.write(waiting.body)
            return 0
    raise _no_message(collector, args.id)


def deliver(collector: Any, args: Namespace) -> int:
    """Deliver what waits, and write the state file."""
    if collector.outbox_is_destination():
        raise ConfigError("[output] url = outbox: is where the messages are; give --to amqp://...")
    journal: Journal = collector.open_journal()
    journal.lock()
    return _done(collector, "delivered", collector.send(journal))


def drop(collector: Any, args: Namespace) -> int:
    """Remove messages for good, such as one that no broker takes."""
    if not (args.ids or args.all or args.refused):
        raise N6StatefulError("nothing was dropped: give the ids of messages, or --refused, or --all")
    journal: Journal = collector.open_journal()
    journal.lock()
    dropped = {
        waiting.id: _line(waiting)
        for waiting in journal.waiting()
        if waiting.id in args.ids or args.all or (args.refused and waiting.refused is not None)
    }
    for missing in set(args.ids) - set(dropped):
        raise _no_message(collector, missing)
    question = f"No run will deliver what is dropped. Drop {counted(len(dropped), 'message')}?"
    confirm(args, "\n".join([*dropped.values(), question]))
    journal.delivered(list(dropped))
    return _done(collector, "dropped", len(dropped))


def _done(collector: Any, what: str, count: int) -> int:
    collector.after_delivery()
    print(f"{what} {counted(count, 'message')} of {collector.journal.where}")
    return 0


def _no_message(collector: Any, id: int) -> N6StatefulError:
    where = collector.journal.where
    return N6StatefulError(f"no message {id} waits in {where}; nothing was done; see `outbox list`")


def _line(waiting: Waiting) -> str:
    refused = [] if waiting.refused is None else [f"refused: {waiting.refused}"]
    names = waiting.exchange, waiting.routing_key, data_size(waiting.size), waiting.message_id
    return printable("  ".join([str(waiting.id), _utc(waiting.queued), *names, *refused]))


def _json(waiting: Waiting, indent: int | None = None) -> str:
    about = waiting._asdict() | {"queued": _utc(waiting.queued)}
    del about["body"]
    return json.dumps(about, indent=indent)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
