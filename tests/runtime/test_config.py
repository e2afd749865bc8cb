"""Configuration: specs, files, converters, and what is said of what is wrong."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import pytest

from n6_stateful import ConfigError
from n6_stateful.config import ConfigFiles, config_files, load, masked, section_names


def value(converter: str, text: str) -> Any:
    return load([f"[s]\nx :: {converter}"], ConfigFiles.from_text(f"[s]\nx = {text}"))["s"]["x"]


def error(spec: str, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load([spec], ConfigFiles.from_text(text, "the.conf"))
    return str(caught.value)


# Converters


@pytest.mark.parametrize(
    ("converter", "text", "expected"),
    [
        ("str", "abc", "abc"),
        ("str", "ś", "ś"),
        ("str", "", ""),
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
def test_converters_are_those_of_n6(converter: str, text: str, expected: Any) -> None:
    assert value(converter, text) == expected


@pytest.mark.parametrize("text", ["true", "T", "Yes", "y", "ON", "1"])
def test_words_for_true(text: str) -> None:
    assert value("bool", text) is True


@pytest.mark.parametrize("text", ["false", "F", "No", "n", "OFF", "0"])
def test_words_for_false(text: str) -> None:
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
def test_what_does_not_convert_is_told_with_section_option_value_file_and_line(
    converter: str, text: str
) -> None:
    told = error(f"[s]\nx :: {converter}", f"; a comment\n[s]\n\nx = {text}\n")
    for part in ("[s] x", text, converter, "the.conf:4"):
        assert part in told


def test_a_path_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/n6")
    assert value("path", "~/.n6cache") == Path("/home/n6/.n6cache")


def test_a_collector_may_bring_converters_of_its_own() -> None:
    spec = "[s]\nx :: upper\ny :: list_of_upper"
    found = load([spec], ConfigFiles.from_text("[s]\nx = a\ny = b, c"), {"upper": str.upper})
    assert found["s"] == {"x": "A", "y": ["B", "C"]}


# Specs


def test_options_are_required_or_have_a_default() -> None:
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


def test_a_section_whose_options_all_have_defaults_may_be_missing() -> None:
    assert load(["[s]\nx = 1 :: int"], ConfigFiles.from_text(""))["s"] == {"x": 1}


def test_specs_of_the_same_section_are_one_and_the_first_declaration_counts() -> None:
    specs = ["[s]\nx = 1 :: int", "[s]\nx = 2 :: int\ny = 3 :: int"]
    assert load(specs, ConfigFiles.from_text(""))["s"] == {"x": 1, "y": 3}


def test_the_names_of_sections_come_in_order() -> None:
    assert section_names("[b]\nx\n[a]\ny") == ["b", "a"]


@pytest.mark.parametrize("spec", ["x :: int", "[s]\nx = 1 :: int :: str extra words", "[s]\na b", "[s"])
def test_a_spec_that_cannot_be_read_is_told_with_its_line(spec: str) -> None:
    assert "config_spec, line" in error(spec, "")


def test_a_converter_that_is_not_there_is_told() -> None:
    assert "no converter 'integer'" in error("[s]\nx :: integer", "[s]\nx = 1")


# Files


def test_files_read_as_n6_reads_them() -> None:
    text = (
        "[s]\nUPPER = 1\nurl = http://a/#b;c ; a comment\n# a comment\n; another\n"
        "base = x\nmade = %(base)s/100%%\nlong = one\n  two\ncolon: 3\nsame = first\nsame = last\n"
        "[S]\nother = section\n"
    )
    found = load(["[s]\n...", "[S]\n..."], ConfigFiles.from_text(text))
    assert found["s"] == {
        "upper": "1",
        "url": "http://a/#b;c",
        "base": "x",
        "made": "x/100%",
        "long": "one\ntwo",
        "colon": "3",
        "same": "last",
    }
    assert found["S"] == {"other": "section"}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_of_a_directory_the_numbered_files_count_and_later_ones_win(tmp_path: Path) -> None:
    first = write(tmp_path / "sub/10_a.conf", "[s]\nx = 1\ny = 1")
    last = write(tmp_path / "60_b.conf", "[s]\nx = 2")
    write(tmp_path / "notes.conf", "[s]\nx = 3")
    write(tmp_path / "70_c.conf.bak", "[s]\nx = 4")
    assert config_files([str(tmp_path)]) == [first, last]
    assert load(["[s]\n..."], ConfigFiles.read([str(tmp_path)]))["s"] == {"x": "2", "y": "1"}


def test_a_file_that_is_named_may_have_any_name(tmp_path: Path) -> None:
    path = write(tmp_path / "mine", "[s]\nx = 1")
    assert config_files([str(path)]) == [path]


def test_the_environment_names_files_and_without_it_the_places_of_n6_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    one, two, own = (
        write(tmp_path / name, "") for name in ("one/10_a.conf", "two/10_b.conf", ".n6/10_c.conf")
    )
    monkeypatch.setenv("N6_CONFIG", f"{one.parent}{os.pathsep}{two.parent}")
    assert config_files() == [one, two]
    monkeypatch.delenv("N6_CONFIG")
    assert own in config_files()


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such"):
        ConfigFiles.read([str(tmp_path / "no-such")])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[s]\nx = \xff", "not UTF-8"),
        (b"x = 1", ":1: an option stands before the first"),
        (b"[s]\nx = 1\nsecret words", ":3: neither"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_line_but_not_its_text(
    data: bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "60_a.conf"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        ConfigFiles.read([str(path)])
    assert f"{path}" in str(caught.value)
    assert told in str(caught.value)
    assert "secret words" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "60_a.conf"
    path.write_bytes(b"\xef\xbb\xbf[s]\nx = 1")
    assert ConfigFiles.read([str(path)]).has_option("s", "x")


# What is wrong


def test_every_problem_of_every_section_is_told_at_once() -> None:
    spec = "[a]\nneeded\nnumber :: int\n[b]\nalso_needed"
    told = error(spec, "[a]\nnumber = x\nnumbre = 1\n")
    assert told.startswith("4 problems")
    for part in (
        "[a] needed: is missing",
        "number = x",
        "did you mean number?",
        "[b]: the section is missing",
    ):
        assert part in told
    assert "[b]\n      also_needed = ..." in told


def test_a_problem_names_the_file_that_wins(tmp_path: Path) -> None:
    write(tmp_path / "10_a.conf", "[s]\nx = 1")
    last = write(tmp_path / "20_b.conf", "\n\n[s]\nx = bad")
    with pytest.raises(ConfigError, match=f"{last}:4"):
        load(["[s]\nx :: int"], ConfigFiles.read([str(tmp_path)]))


def test_a_bare_percent_sign_gets_a_hint() -> None:
    assert "written %%" in error("[s]\nurl", "[s]\nurl = http://a/%20b")
    assert "names no option" in error("[s]\nurl", "[s]\nurl = %(nothing)s")
    assert "circle" in error("[s]\na\nb", "[s]\na = %(b)s\nb = %(a)s")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("password", "hunter2"),
        ("api_key", "hunter2"),
        ("auth_token", "hunter2 %"),
        ("url", "https://user:hunter2@feed.example/"),
        ("url", "https://user:hunter2@feed.example/%zz"),
    ],
)
def test_secrets_are_never_shown(option: str, text: str) -> None:
    told = error(f"[s]\n{option} :: int", f"[s]\n{option} = {text}")
    assert "***" in told
    assert "hunter2" not in told


def test_a_urls_password_is_masked_and_the_rest_is_shown() -> None:
    assert masked("url", "amqp://user:p%40ss@host:5672/") == "amqp://user:***@host:5672/"
    assert masked("ssl_keyfile", "/etc/key.pem") == "/etc/key.pem"
