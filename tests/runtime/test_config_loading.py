"""Loading: specs and files together, and what is told of what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from n6_stateful import ConfigError
from n6_stateful.config import ConfigFiles, load
from tests.runtime.configs import error, value, write


def test_all_problems() -> None:
    """Every problem of every section is told at once."""
    spec = "[a]\nneeded\nnumber :: int\n[b]\nalso_needed"
    told = error(spec, "[a]\nnumber = x\nnumbre = 1\n")
    assert told.startswith("4 problems")
    for part in (
        "[a] needed: is missing",
        "number = x",
        "did you mean number?",
        "[b] also_needed: is missing",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("section", "told"), [("outptu", True), ("Output", True), ("my_output", False), ("putout", False)]
)
def test_misspelt_section(section: str, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A section that need not be there, and is there under a name that is a slip, is a warning."""
    load(["[output]\nurl = :: str"], ConfigFiles.from_text(f"[{section}]\nurl = spool:/x\n"))
    assert (f"(looked at <text>); there is [{section}]: should it be [output]?" in caplog.text) is told


def test_winning_file(tmp_path: Path) -> None:
    """A problem names the file that wins."""
    write(tmp_path / "10_a.conf", "[s]\nx = 1")
    last = write(tmp_path / "20_b.conf", "\n\n[s]\nx = bad")
    with pytest.raises(ConfigError, match=f"{last}:4"):
        load(["[s]\nx :: int"], ConfigFiles.from_paths([str(tmp_path)]))


LINES = [
    "[s]",
    "[t] ; note",
    "[DEFAULT]",
    "x = {n}v",
    "  x = {n}v",
    "      X : {n}v",
    "y = {n}v ; x = 0v",
    "\ty={n}v\x0cw",
    "x = {n}v # y = 0v",
    "# x = 0v",
    "  ; x = 0v",
    "",
    "   ",
]


@given(st.lists(st.sampled_from(LINES)))
@example(["[DEFAULT]", "x = {n}v", "[s]", "y = {n}v", "      X : {n}v"])
@example(["x = {n}v", "                [t]", "x = {n}v"])
def test_line(lines: list[str]) -> None:
    """The line that is told is the one where the value begins."""
    # Each value is the number of its own line.
    text = "\n".join(line.replace("{n}", str(number)) for number, line in enumerate(["[s]", *lines], 1))
    told = error("[s]\nx :: int\nz\n... :: int", text)
    places = re.findall(r"\[s\] [xy] = '?(\d+)v.*\(the\.conf:(\d+)\)", told)
    assert len(places) == len(re.findall("not a valid int:", told))
    assert all(wanted == found for wanted, found in places)


def test_free_option() -> None:
    """A free option that is in [DEFAULT] too is taken from its own section."""
    text = "[DEFAULT]\nx = 1\ninherited = 3\n[s]\nx = 1\n"
    assert load(["[s]\n..."], ConfigFiles.from_text(text))["s"] == {"x": "1"}


def test_case() -> None:
    """A section that is written in another case is pointed out."""
    assert "there is [MY_FEED]: should it be [my_feed]?" in error("[my_feed]\nx", "[MY_FEED]\nx = 1")


def test_control_characters() -> None:
    """A value is told in one short line without control characters."""
    told = error("[s]\nx :: int", "[s]\nx = a\x1b[31m\n  b\n" + "  c\n" * 1000)
    assert "\x1b" not in told
    assert len(told.splitlines()) == 2
    assert len(told) < 1000


@given(st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters=";"), min_size=1))
def test_percent(text: str) -> None:
    """Any value is read as it is once its percent signs are doubled."""
    assert value("str", text.replace("%", "%%")) == text


def test_bare_percent() -> None:
    """A bare percent sign gets a hint."""
    assert "write %%" in error("[s]\nurl", "[s]\nurl = http://a/%20b")
    assert "write %%" in error("[s]\nurl", "[s]\nurl = %(nothing)s")
    assert "write %%" in error("[s]\na\nb", "[s]\na = %(b)s\nb = %(a)s")


def test_empty() -> None:
    """A required option must not be empty; a list may."""
    assert "[s] url = : is empty (the.conf:2)" in error("[s]\nurl", "[s]\nurl =\n")
    assert value("list_of_str", "") == []
