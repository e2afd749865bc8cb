"""Packages that only some collectors need; each comes with an extra of the runtime."""

from __future__ import annotations

from n6_stateful.errors import ConfigError


def needs_extra(what: str, extra: str, exc: ImportError) -> ConfigError:
    """The error for `what`, which needs a package that is not installed."""
    return ConfigError(
        f"{what} needs the package {exc.name}; install the extra: n6-stateful-runtime[{extra}]"
    )
