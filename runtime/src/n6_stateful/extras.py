"""What not every collector needs: packages that come with an extra of the runtime."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from n6_stateful.errors import ConfigError

DISTRIBUTION = "n6-stateful-runtime"


def needs_extra(what: str, extra: str, exc: ImportError) -> ConfigError:
    """The error of `what`, which needs a package that is not installed; it tells the command that mends it,
    which takes the runtime from where it came from."""
    return ConfigError(
        f"{what} needs {exc.name or 'a package'}, which is not installed: "
        f"{sys.executable} -m pip install '{_requirement(extra)}'"
    )


def _requirement(extra: str) -> str:
    """The runtime with that extra, as pip takes it. By its name alone only if an index is where it came from:
    from an index of strangers anybody's package could come under that name."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    # https://packaging.python.org/en/latest/specifications/direct-url/
    with suppress(PackageNotFoundError, KeyError, TypeError, ValueError):
        told = json.loads(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
        parts = urlsplit(told["url"])
        if parts.scheme == "file" and Path(unquote(parts.path)).exists():
            return f"{unquote(parts.path)}[{extra}]"
        if version := told.get("vcs_info"):
            place = f"#subdirectory={told['subdirectory']}" if "subdirectory" in told else ""
            return f"{DISTRIBUTION}[{extra}] @ {version['vcs']}+{told['url']}@{version['commit_id']}{place}"
    return f"{DISTRIBUTION}[{extra}]"
