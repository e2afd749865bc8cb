"""The examples in docstrings are executed."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.house.imports import modules

WITH_EXAMPLES = [name for name, path in modules().items() if ">>> " in Path(path).read_text()]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name: str) -> None:
    """They return what they show."""
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed
