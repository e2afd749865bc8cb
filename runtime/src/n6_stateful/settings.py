"""What the command line (or a test) asked of this run: a value that any module may read.

It is not configuration: that comes from files (see `n6_stateful.config`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Settings(NamedTuple):
    """What was asked for.

    Attributes:
        config_paths: configuration files or directories, in reading order; empty means
            `N6_CONFIG`, else `/etc/n6` and `~/.n6`.
        output: the output's URL; None means as configured.
        with_output: whether the run delivers at all; without it no output needs to be configured.
        dry_run: download and show, but commit and deliver nothing.
    """

    config_paths: tuple[str, ...] = ()
    output: str | None = None
    with_output: bool = True
    dry_run: bool = False


_current: ContextVar[Settings] = ContextVar("n6_stateful_settings")


def current() -> Settings:
    """The settings that hold now."""
    return _current.get(None) or Settings()


@contextmanager
def use(settings: Settings) -> Iterator[Settings]:
    """Let `settings` hold for the length of a `with` block."""
    token = _current.set(settings)
    try:
        yield settings
    finally:
        _current.reset(token)
