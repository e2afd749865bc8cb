"""`spool list`, `spool show`, `spool forward`, `spool drop`."""

from __future__ import annotations

import json
import sys
import time
from itertools import islice
from typing import TYPE_CHECKING

from n6_stateful import settings, typed_json
from n6_stateful.command.confirm import confirm
from n6_stateful.config import ConfigFiles
from n6_stateful.errors import N6StatefulError
from n6_stateful.output import forwarding
from n6_stateful.output.choice import find_broker, find_spool
from n6_stateful.output.spool import Spool, Spooled

if TYPE_CHECKING:
    from argparse import Namespace

    from n6_stateful.collector import AbstractBaseCollector


def list_(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Print a line for each message that waits, oldest first, and a line that sums them up."""
    spool = _spool()
    shown = 0
    for spooled in islice(spool.messages(), min(args.limit or sys.maxsize, sys.maxsize)):
        print(json.dumps(_as_json(spooled)) if args.json else _as_line(spooled))
        shown += 1
    if not args.json:
        count, size = spool.summary()
        more = f", {count - shown:,} of them not shown" if shown < count else ""
        print(f"{count:,} message{'' if count == 1 else 's'} ({size:,} bytes) in {spool.where}{more}")
    return 0


def show(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Write one message's body, as it is, to standard output, and its properties to standard error."""
    spooled = _message(_spool(), args.message_id)
    print(json.dumps(_as_json(spooled), indent=2), file=sys.stderr)
    sys.stdout.flush()
    sys.stdout.buffer.write(spooled.message.body)
    sys.stdout.buffer.flush()
    return 0


def forward(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Send what waits to the broker."""
    spool = _spool()
    broker = find_broker(ConfigFiles.from_paths(settings.current().config_paths), args.to)
    sent = forwarding.forward(spool, broker)
    print(f"forwarded {sent:,} message{'' if sent == 1 else 's'} from {spool.where} to {broker.where}")
    if refusal := spool.refusal():
        raise refusal
    return 0


def drop(collector_class: type[AbstractBaseCollector], args: Namespace) -> int:
    """Take one message out of the spool for good: one that no broker takes, for instance."""
    spool = _spool()
    spooled = _message(spool, args.message_id)
    line = _as_line(spooled)
    confirm(args, f"{line}\nIt will not be sent, by no later run either. Drop it from {spool.where}?")
    spool.drop(spooled)
    print(f"dropped {line}")
    return 0


def _message(spool: Spool, message_id: str) -> Spooled:
    spooled = spool.message(message_id)
    if spooled is None:
        several = message_id and any(each.message_id.startswith(message_id) for each in spool.messages())
        which = "more than one message with an id that begins with" if several else "no message with the id"
        raise N6StatefulError(f"{which} {message_id!r} in {spool.where}; see `spool list`")
    return spooled


def _spool() -> Spool:
    wanted = settings.current()
    override = wanted.output if isinstance(wanted.output, str) else None
    return find_spool(ConfigFiles.from_paths(wanted.config_paths), override)


def _as_line(spooled: Spooled) -> str:
    message = spooled.message
    columns = map(_shown, (message.properties["message_id"], message.exchange, message.routing_key))
    apart = [f"set apart: {spooled.refused}"] if spooled.refused is not None else []
    return "  ".join((_utc(spooled.spooled), *columns, f"{spooled.size:,} bytes", *apart))


def _shown(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]


def _as_json(spooled: Spooled) -> dict[str, object]:
    message = spooled.message
    return {
        "spooled": _utc(spooled.spooled),
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "size": spooled.size,
        "generation": message.generation,
        "refused": spooled.refused,
        "properties": typed_json.dump(message.properties),
    }


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
