"""`outbox list`, `show`, `deliver` and `drop`."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from itertools import islice
from typing import Any

from n6_stateful.command.failures import confirm
from n6_stateful.errors import ConfigError, N6StatefulError
from n6_stateful.health import counted, data_size, printable
from n6_stateful.journal import Journal, Waiting


def list_(collector: Any, args: Namespace) -> int:
    """Print a line for each message that waits, the refused ones last, and a line with the sum."""
    journal: Journal = collector.journal
    backlog = journal.backlog()
    write = (lambda waiting: json.dumps(_about(waiting))) if args.json else _line
    lines = [write(waiting) for waiting in islice(journal.waiting(), args.limit)]
    if not args.json:
        hidden = backlog.messages - len(lines)
        more = f", {hidden:,} of them not shown" if hidden else ""
        lines.append(f"{_counted(backlog.messages)} ({data_size(backlog.bytes)}) in {journal.where}{more}")
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def show(collector: Any, args: Namespace) -> int:
    """Write one message's body, as it is, to standard output, and the rest to standard error."""
    journal: Journal = collector.journal
    message = next((waiting for waiting in journal.waiting() if waiting.id == args.id), None)
    if message is None:
        raise _no_message(journal, args.id)
    print(json.dumps(_about(message), indent=2), file=sys.stderr)
    sys.stdout.buffer.write(message.body)
    sys.stdout.buffer.flush()
    return 0


def deliver(collector: Any, args: Namespace) -> int:
    """Deliver what waits, and write the state file."""
    if collector.outbox_is_destination():
        raise ConfigError("[output] url = outbox: is where the messages are; give --to amqp://...")
    journal: Journal = collector.open_journal()
    journal.lock()
    count = collector.send(journal)
    collector.after_delivery()
    print(f"delivered {_counted(count)} of {journal.where}")
    return 0


def drop(collector: Any, args: Namespace) -> int:
    """Remove messages for good, such as one that no broker takes."""
    journal: Journal = collector.open_journal()
    journal.lock()
    dropped = {
        waiting.id: _line(waiting)
        for waiting in journal.waiting()
        if waiting.id in args.ids or args.all or (args.refused and waiting.refused is not None)
    }
    if missing := set(args.ids) - set(dropped):
        raise _no_message(journal, min(missing))
    question = f"No run will deliver what is dropped. Drop {_counted(len(dropped))}?"
    confirm(args, "\n".join([*dropped.values(), question]))
    journal.delivered(list(dropped))
    collector.after_delivery()
    print(f"dropped {_counted(len(dropped))} of {journal.where}")
    return 0


def _counted(messages: int) -> str:
    return counted(messages, "message")


def _no_message(journal: Journal, id: int) -> N6StatefulError:
    return N6StatefulError(f"no message {id} waits in {journal.where}; nothing was done; see `outbox list`")


def _line(waiting: Waiting) -> str:
    refused = [] if waiting.refused is None else [f"refused: {waiting.refused}"]
    names = waiting.exchange, waiting.routing_key, data_size(waiting.size), waiting.message_id
    return printable("  ".join([str(waiting.id), _utc(waiting.queued), *names, *refused]))


def _about(waiting: Waiting) -> dict[str, Any]:
    about = waiting._asdict() | {"queued": _utc(waiting.queued)}
    del about["body"]
    return about


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
