"""Converters: from text to values."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n6_stateful.config import ConfigFiles, load
from tests.runtime.configs import error, value


@pytest.mark.parametrize(
    ("converter", "text", "expected"),
    [
        ("str", "abc", "abc"),
        ("str", "ś", "ś"),
        ("bytes", "ś", b"\xc5\x9b"),
        ("int", "-42", -42),
        ("float", "42", 42.0),
        ("date", "2010-07-19", datetime.date(2010, 7, 19)),
        ("datetime", "2010-07-19 12:39:45+02:00", datetime.datetime(2010, 7, 19, 10, 39, 45)),
        ("datetime", "2010-07-19T12:39:45Z", datetime.datetime(2010, 7, 19, 12, 39, 45)),
        ("datetime", "2010-07-19T12:39", datetime.datetime(2010, 7, 19, 12, 39)),
        ("path", "/a/b", Path("/a/b")),
        ("json", '{"a": [null]}', {"a": [None]}),
        ("py", "[('a',), {42: None}]", [("a",), {42: None}]),
        ("py_namespaces_dict", "{'a': {'b': 1}}", {"a": {"b": 1}}),
        ("importable_dotted_name", "os.path.join", os.path.join),
        ("list_of_str", " a, b,c ,", ["a", "b", "c"]),
        ("list_of_str", "", []),
        ("list_of_int", "42,43,", [42, 43]),
        ("list_of_bool", "yes,No , TRUE", [True, False, True]),
        ("list_of_path", "/a, /b", [Path("/a"), Path("/b")]),
        ("list_of_date", "2010-07-19", [datetime.date(2010, 7, 19)]),
    ],
)
def test_value(converter: str, text: str, expected: Any) -> None:
    """Names and meanings are n6's."""
    assert value(converter, text) == expected


@pytest.mark.parametrize("text", ["true", "T", "Yes", "y", "ON", "1"])
def test_true(text: str) -> None:
    """The words for true."""
    assert value("bool", text) is True


@pytest.mark.parametrize("text", ["false", "F", "No", "n", "OFF", "0"])
def test_false(text: str) -> None:
    """The words for false."""
    assert value("bool", text) is False


@pytest.mark.parametrize(
    ("converter", "text"),
    [
        ("int", "4.5"),
        ("bool", "maybe"),
        ("date", "19.07.2010"),
        ("datetime", "noon"),
        ("path", "relative"),
        ("json", "{"),
        ("py", "os.system('x')"),
        ("py_namespaces_dict", "{1: 2}"),
        ("py_namespaces_dict", "{'a': {1: 2}}"),
        ("importable_dotted_name", "no.such.thing"),
        ("list_of_int", "1,x"),
    ],
)
def test_invalid(converter: str, text: str) -> None:
    """What does not convert is told with section, option, value, file and line."""
    told = error(f"[s]\nx :: {converter}", f"; a comment\n[s]\n\nx = {text}\n")
    for part in ("[s] x", text, converter, "the.conf:4"):
        assert part in told


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may begin with a tilde."""
    monkeypatch.setenv("HOME", "/home/n6")
    assert value("path", "~/.n6cache") == Path("/home/n6/.n6cache")


def test_relative() -> None:
    """A relative path is refused."""
    assert "must begin with / or ~" in error("[s]\nx :: path", "[s]\nx = a/b")


@given(st.datetimes(timezones=st.timezones(), allow_imaginary=False).filter(lambda t: 1 < t.year < 9999))
def test_datetime(moment: datetime.datetime) -> None:
    """A datetime of any zone becomes naive UTC."""
    expected = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    assert value("datetime", moment.isoformat()) == expected


@given(st.lists(st.integers()), st.sampled_from(["", ",", " , "]))
def test_list(numbers: list[int], end: str) -> None:
    """A list may have any spaces, and a comma at the end."""
    assert value("list_of_int", " , ".join(map(str, numbers)) + end) == numbers


def test_custom() -> None:
    """A collector may bring converters of its own."""
    spec = "[s]\nx :: upper\ny :: list_of_upper"
    found = load([spec], ConfigFiles.from_text("[s]\nx = a\ny = b, c"), {"upper": str.upper})
    assert found["s"] == {"x": "A", "y": ["B", "C"]}
