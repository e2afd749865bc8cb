"""A program for tests: a collector's state, without a collector around it.

    python state_program.py CACHE_DIR save VALUE     save {"value": VALUE}
    python state_program.py CACHE_DIR replace VALUE  the same, as a run that published nothing
    python state_program.py CACHE_DIR load           print what is loaded, as JSON
    python state_program.py CACHE_DIR hold           load, say "held", and wait for the end of standard input
    python state_program.py CACHE_DIR fork           the same, with a forked child that ends at once

Ends with the exit code of the error, which it prints.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from n6_stateful import CollectorWithStateMixin
from n6_stateful.errors import N6StatefulError


class Base:
    """The least that the mixin asks of a base."""

    def __init__(self, **config: Any) -> None:
        self.config = config

    def get_source_channel(self) -> str:
        return "channel"

    def get_source(self, *, source_channel: str) -> str:
        return f"provider.{source_channel}"


class Program(CollectorWithStateMixin, Base):
    pickle_protocol = 2 if os.environ.get("PROTOCOL_2") else 5

    def make_default_state(self) -> dict[str, str]:
        return {"value": "default"}

    def save(self, state: Any) -> None:
        """As a run does it."""
        self.load_state()
        self.save_state(state)


def main(cache_dir: str, action: str, value: str = "") -> None:
    program = Program(cache_dir=cache_dir)
    if action == "save":
        program.load_state()
        program.save_state({"value": value})
    elif action == "replace":
        program.load_state()
        program.save_as_new({"value": value}, 3, keep_previous=False)
    elif action == "load":
        print(json.dumps(program.load_state()))
    else:
        program.load_state()
        if action == "fork":
            child = os.fork()
            if child == 0:
                program.close_state()
                os._exit(0)
            os.waitpid(child, 0)
        print("held", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except N6StatefulError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
