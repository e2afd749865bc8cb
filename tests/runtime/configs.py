"""What the tests of the configuration share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from n6_stateful import ConfigError
from n6_stateful.config import ConfigFiles, load


def value(converter: str, text: str) -> Any:
    """What `converter` makes of `text`."""
    return load([f"[s]\nx :: {converter}"], ConfigFiles.from_text(f"[s]\nx = {text}"))["s"]["x"]


def error(spec: str, text: str) -> str:
    """What loading `text` by `spec` is refused with."""
    with pytest.raises(ConfigError) as caught:
        load([spec], ConfigFiles.from_text(text, "the.conf"))
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    """Make a file, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
