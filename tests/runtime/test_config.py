"""Configuration: specs, files, converters, and what is said of what is wrong."""

from __future__ import annotations

import datetime
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from n6_stateful import ConfigError
from n6_stateful.config import ConfigFiles, ConfigSection, config_files, load, section_names
from n6_stateful.config.masking import masked


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


def test_a_relative_path_is_told_to_be_that() -> None:
    assert "must begin with / or ~" in error("[s]\nx :: path", "[s]\nx = a/b")


@given(st.datetimes(timezones=st.timezones(), allow_imaginary=False).filter(lambda t: 1 < t.year < 9999))
def test_a_datetime_of_any_zone_becomes_naive_utc(moment: datetime.datetime) -> None:
    expected = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    assert value("datetime", moment.isoformat()) == expected


@given(st.lists(st.integers()), st.sampled_from(["", ",", " , "]))
def test_a_list_is_read_with_any_spaces_and_with_a_comma_at_the_end(numbers: list[int], end: str) -> None:
    assert value("list_of_int", " , ".join(map(str, numbers)) + end) == numbers


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


def test_a_default_may_follow_a_colon_as_in_n6() -> None:
    spec = "[s]\na : yes :: bool\nb: text\nc = ::1 :: str\nd::int"
    found = load([spec], ConfigFiles.from_text("[s]\nd = 1"))
    assert found["s"] == {"a": True, "b": "text", "c": "::1", "d": 1}


def test_the_names_of_sections_come_in_order() -> None:
    assert section_names("[b]\nx\n[a]\ny") == ["b", "a"]


@pytest.mark.parametrize(
    "spec", ["x :: int", "[s]\nx = 1 :: int :: str extra words", "[s]\na b", "[s", "[s]\n... = 1"]
)
def test_a_spec_that_cannot_be_read_is_told_with_its_line(spec: str) -> None:
    assert "config_spec, line" in error(spec, "")


def test_a_converter_that_is_not_there_is_told() -> None:
    assert "there is no converter 'integer'" in error("[s]\nx :: integer", "[s]\nx = 1")


def test_a_default_that_does_not_convert_is_told_with_the_line_of_the_spec() -> None:
    assert "[s] x = abc: not a valid int" in error("[s]\n\nx = abc :: int", "")
    assert "(config_spec, line 3)" in error("[s]\n\nx = abc :: int", "")


def test_what_is_wrong_in_specs_is_told_together_with_what_is_wrong_in_files() -> None:
    told = error("[s]\nx :: floot\ny = z :: int\nnumber :: int", "[s]\nx = 1\nnumber = n")
    assert told.startswith("3 problems")
    assert "config_spec, line 1: 'a'" in error("a\nb", "")
    assert "config_spec, line 2: 'b'" in error("a\nb", "")


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
    first = write(tmp_path / "10_a.conf", "[s]\nx = 1\ny = 1")
    last = write(tmp_path / "60_b.conf", "[s]\nx = 2")
    write(tmp_path / "notes.conf", "[s]\nx = 3")
    write(tmp_path / "70_c.conf.bak", "[s]\nx = 4")
    (tmp_path / "80_folder.conf").mkdir()
    assert config_files([str(tmp_path)]) == [first, last]
    assert load(["[s]\n..."], ConfigFiles.from_paths([str(tmp_path)]))["s"] == {"x": "2", "y": "1"}


def test_sub_folders_are_searched_and_the_whole_path_sorts_as_in_n6(tmp_path: Path) -> None:
    expected = [
        write(tmp_path / name, "") for name in ("10_a.conf", "60_b.conf", "a/20_c.conf", "b/10_a.conf")
    ]
    assert config_files([str(tmp_path)]) == expected


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
        ConfigFiles.from_paths([str(tmp_path / "no-such")])


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "60_a.conf").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError, match=r"60_a\.conf: cannot be read"):
        ConfigFiles.from_paths([str(tmp_path)])
    with pytest.raises(ConfigError, match="loop: no configuration can be read there"):
        ConfigFiles.from_paths([str(tmp_path / "loop")])


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """A directory, and no right to read what its modes forbid (root may read everything)."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        uid = os.geteuid()
        try:
            yield Path(name)
        finally:
            os.seteuid(uid)
            for path in Path(name).rglob("*"):
                path.chmod(0o700)


def drop_rights() -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)


def test_a_named_file_or_directory_that_may_not_be_read_is_an_error() -> None:
    with ordinary_user() as directory:
        closed = write(directory / "closed/60_a.conf", "").parent
        path = write(directory / "closed.conf", "")
        closed.chmod(0)
        path.chmod(0)
        drop_rights()
        for name in (closed, closed / "60_a.conf", path):
            with pytest.raises(ConfigError, match=f"{name}: .* be read.*: Permission denied"):
                ConfigFiles.from_paths([str(name)])


def test_a_sub_folder_or_a_default_directory_that_may_not_be_read_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with ordinary_user() as directory:
        path = write(directory / ".n6/60_a.conf", "")
        keys = directory / ".n6/keys"
        keys.mkdir(0)
        monkeypatch.setenv("HOME", str(directory))
        monkeypatch.delenv("N6_CONFIG", raising=False)
        drop_rights()
        assert path in config_files()
        assert f"{keys}: is not searched for configuration: Permission denied" in caplog.text
        os.seteuid(os.getuid())
        path.parent.chmod(0)
        drop_rights()
        assert path not in config_files()
        assert f"{path.parent}: is not searched" in caplog.text


def test_where_was_looked_is_told_when_a_section_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "one/10_a.conf", "")
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("N6_CONFIG", f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'none'}")
    with pytest.raises(ConfigError) as caught:
        load(["[s]\nx"], ConfigFiles.from_paths())
    assert f"{tmp_path / 'one'} (files named NN_*.conf: 1)" in str(caught.value)
    assert f"{tmp_path / 'none'} (files named NN_*.conf: 0)" in str(caught.value)
    monkeypatch.delenv("N6_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    with pytest.raises(ConfigError, match=rf"/etc/n6 .* and {tmp_path / 'nobody/.n6'} \(files named NN_"):
        load(["[no such section]\nx"], ConfigFiles.from_paths())


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o664, False), (0o666, True)])
def test_a_file_that_others_may_write_to_is_warned_of(
    mode: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "60_a.conf", "[s]\nx = 1")
    path.chmod(mode)
    assert ConfigFiles.from_paths([str(path)]).has_option("s", "x")
    assert (f"chmod o-w {path}" in caplog.text) is warned


def test_a_directory_that_others_may_write_to_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o777)
    config_files([str(tmp_path)])
    assert f"chmod o-w {tmp_path}" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_device_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    ConfigFiles.from_paths(["/dev/null"])
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[s]\nx = \xff", ":2: is not UTF-8"),
        (b"x = 1", ":1: an option stands before the first"),
        (b"[s]\nx = 1\nsecret words", ":3: not a [section]"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_line_but_not_its_text(
    data: bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "60_a.conf"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        ConfigFiles.from_paths([str(path)])
    assert f"{path}" in str(caught.value)
    assert told in str(caught.value)
    assert "secret words" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "60_a.conf"
    path.write_bytes(b"\xef\xbb\xbf[s]\nx = 1")
    assert ConfigFiles.from_paths([str(path)]).has_option("s", "x")


# What is wrong


def test_every_problem_of_every_section_is_told_at_once() -> None:
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


def test_a_problem_names_the_file_that_wins(tmp_path: Path) -> None:
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
def test_the_line_that_is_told_is_the_one_where_the_value_begins(lines: list[str]) -> None:
    # Each value is the number of its own line.
    text = "\n".join(line.replace("{n}", str(number)) for number, line in enumerate(["[s]", *lines], 1))
    told = error("[s]\nx :: int\nz\n... :: int", text)
    places = re.findall(r"\[s\] [xy] = '?(\d+)v.*\(the\.conf:(\d+)\)", told)
    assert len(places) == len(re.findall("not a valid int:", told))
    assert all(wanted == found for wanted, found in places)


def test_a_free_option_that_is_in_default_too_is_taken_from_its_own_section() -> None:
    text = "[DEFAULT]\nx = 1\ninherited = 3\n[s]\nx = 1\n"
    assert load(["[s]\n..."], ConfigFiles.from_text(text))["s"] == {"x": "1"}


def test_a_section_that_is_written_in_another_case_is_pointed_out() -> None:
    assert "did you mean MY_FEED?" in error("[my_feed]\nx", "[MY_FEED]\nx = 1")


def test_a_value_is_told_in_one_line_that_no_terminal_obeys() -> None:
    told = error("[s]\nx :: int", "[s]\nx = a\x1b[31m\n  b\n" + "  c\n" * 1000)
    assert "\x1b" not in told
    assert len(told.splitlines()) == 2
    assert len(told) < 1000


@given(st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters=";"), min_size=1))
def test_any_value_is_read_as_it_is_once_its_percent_signs_are_doubled(text: str) -> None:
    assert value("str", text.replace("%", "%%")) == text


def test_a_bare_percent_sign_gets_a_hint() -> None:
    assert "write %%" in error("[s]\nurl", "[s]\nurl = http://a/%20b")
    assert "write %%" in error("[s]\nurl", "[s]\nurl = %(nothing)s")
    assert "write %%" in error("[s]\na\nb", "[s]\na = %(b)s\nb = %(a)s")


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


PUNCTUATION = st.text("/:@#?[]{}()%&=,.'\"ab1")


@pytest.mark.parametrize(
    "text",
    [
        "password = SECRET",
        "apikey = SECRET",
        "x = SECRET",
        "x = amqp://user:SECRET@host/vhost",
        "x = http://one.example/, redis://:SECRET@host",
        "x = user:SECRET@host",
        "x = a %(password)s b\npassword = SECRET",
        "x = %(y)s\ny = http://h/%(token)s\ntoken = SECRET",
    ],
)
@given(before=PUNCTUATION, after=PUNCTUATION)
@example(before="//", after="")
@example(before="", after="token=")
@example(before="@", after="")
def test_whatever_stands_in_a_secret_it_is_not_shown(text: str, before: str, after: str) -> None:
    if text == "x = SECRET":  # nothing but what is around tells that it is one
        before = f"https://feed.example/?api_key={before}"
    if text == "x = user:SECRET@host":  # after // it would be the user of a URL, if a password follows
        after = after.replace(":", "")
    secret = f"{before}hunter2{after}"
    for doubled in (secret, secret.replace("%", "%%")):
        try:
            load(["[s]\n... :: int"], ConfigFiles.from_text("[s]\n" + text.replace("SECRET", doubled)))
        except ConfigError as exc:
            told = str(exc)
        assert "[s]" in told
        assert "hunter2" not in told


def test_an_option_that_is_not_declared_is_told_without_its_value() -> None:
    # `pasword` does not look like the name of a secret, and holds one.
    told = error("[s]\npassword = :: str", "[s]\npasword = hunter2")
    assert "did you mean password?" in told
    assert "hunter2" not in told


@pytest.mark.parametrize("converter", ["json", "py_namespaces_dict"])
def test_a_token_within_headers_is_not_shown(converter: str) -> None:
    told = error(f"[s]\nheaders :: {converter}", '[s]\nheaders = {"Authorization": "Bearer hunter2"')
    assert "headers = ***" in told
    assert "hunter2" not in told


def test_a_section_that_is_logged_shows_no_secret() -> None:
    section = ConfigSection("s", {"password": "hunter2", "url": "http://u:hunter2@h/", "n": 1})
    assert str(section) == "<ConfigSection s: password=***, url=http://u:***@h/, n=1>"
    assert section["password"] == "hunter2"


def test_a_urls_password_is_masked_and_the_rest_is_shown() -> None:
    assert masked("url", "amqp://user:p%40ss@host:5672/") == "amqp://user:***@host:5672/"
    assert masked("url", "https://token@host/") == "https://***@host/"
    assert masked("ssl_keyfile", "/etc/key.pem") == "/etc/key.pem"


def test_required_and_empty() -> None:
    """A required option must not be empty; a list may."""
    assert "[s] url = : is empty (the.conf:2)" in error("[s]\nurl", "[s]\nurl =\n")
    assert value("list_of_str", "") == []


@pytest.mark.parametrize(
    ("line", "warned"),
    [
        ("api_key = a ;b", True),
        ("api_key = a ; b", True),
        ("x = a ;b", True),
        ("x = a ; a note", False),
        ("x = a;b", False),
        ("; api_key = a ;b", False),
        ("api_key = a", False),
    ],
)
def test_cut_comment(line: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A comment that may have been meant as a part of the value is warned of, without the value."""
    ConfigFiles.from_text(f"[s]\n{line}\n", "the.conf").has_option("s", "x")
    assert ("the.conf:2: what follows ' ;' was taken for a comment" in caplog.text) is warned
    assert len(caplog.records) == warned
