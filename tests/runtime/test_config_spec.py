"""Specs: what a `config_spec` declares."""

from __future__ import annotations

import pytest

from n6_stateful.config import ConfigFiles, load, section_names
from tests.runtime.configs import error


def test_options() -> None:
    """An option is required, or has a default."""
    spec = """
        [first]
        needed :: int        ; a comment
        with_default = 5 :: int
        no_converter = text  ; another
        empty = :: str
        # a whole line
        plain

        [second]
        ... :: int
    """
    found = load([spec], ConfigFiles.from_text("[first]\nneeded = 1\nplain = p\n[second]\na = 1\nb = 2"))
    assert found["first"] == {
        "needed": 1,
        "with_default": 5,
        "no_converter": "text",
        "empty": "",
        "plain": "p",
    }
    assert found["second"] == {"a": 1, "b": 2}
    assert found["first"].name == "first"


def test_optional_section() -> None:
    """A section whose options all have defaults may be missing."""
    assert load(["[s]\nx = 1 :: int"], ConfigFiles.from_text(""))["s"] == {"x": 1}


def test_merged() -> None:
    """Specs of one section are merged; the first declaration of an option counts."""
    specs = ["[s]\nx = 1 :: int", "[s]\nx = 2 :: int\ny = 3 :: int"]
    assert load(specs, ConfigFiles.from_text(""))["s"] == {"x": 1, "y": 3}


def test_colon() -> None:
    """A default may follow a colon, as in n6."""
    spec = "[s]\na : yes :: bool\nb: text\nc = ::1 :: str\nd::int"
    found = load([spec], ConfigFiles.from_text("[s]\nd = 1"))
    assert found["s"] == {"a": True, "b": "text", "c": "::1", "d": 1}


def test_names() -> None:
    """The names of the sections come in their order."""
    assert section_names("[b]\nx\n[a]\ny") == ["b", "a"]


@pytest.mark.parametrize(
    "spec", ["x :: int", "[s]\nx = 1 :: int :: str extra words", "[s]\na b", "[s", "[s]\n... = 1"]
)
def test_unreadable(spec: str) -> None:
    """A line that cannot be read is told with its number."""
    assert "config_spec, line" in error(spec, "")


def test_no_converter() -> None:
    """A converter that does not exist is named."""
    assert "there is no converter 'integer'" in error("[s]\nx :: integer", "[s]\nx = 1")


def test_invalid_default() -> None:
    """A default that does not convert is told with the spec's line."""
    assert "[s] x = abc: not a valid int" in error("[s]\n\nx = abc :: int", "")
    assert "(config_spec, line 3)" in error("[s]\n\nx = abc :: int", "")


def test_all_problems() -> None:
    """What is wrong in specs is told together with what is wrong in files."""
    told = error("[s]\nx :: floot\ny = z :: int\nnumber :: int", "[s]\nx = 1\nnumber = n")
    assert told.startswith("3 problems")
    assert "config_spec, line 1: 'a'" in error("a\nb", "")
    assert "config_spec, line 2: 'b'" in error("a\nb", "")
