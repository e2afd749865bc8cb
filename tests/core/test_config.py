"""Configuration: n6's specs, files and converters; every problem at once, and no secret in it."""

from __future__ import annotations

import datetime
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
from n6_stateful.config import ConfigFiles, ConfigSection, config_files, load, masked_url_text, section_names


def value(converter: str, text: str) -> Any:
    return load([f"[s]\nx :: {converter}"], ConfigFiles.from_text(f"[s]\nx = {text}"))["s"]["x"]


def error(spec: str, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load([spec], ConfigFiles.from_text(text, "the.conf"))
    return str(caught.value)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


class TestSpec:
    """What a `config_spec` declares."""

    def test_options(self) -> None:
        """An option is required, or has a default after `=` or `:`; `...` allows others."""
        spec = """
            [first]
            needed :: int        ; a comment
            with_default = 5 :: int
            no_converter = text  ; another
            empty = :: str
            # a whole line
            colon : yes :: bool
            colons = ::1 :: str
            close::int
            plain

            [second]
            ... :: int
        """
        text = "[first]\nneeded = 1\nplain = p\nclose = 2\n[second]\na = 1\nb = 2"
        sections = load([spec], ConfigFiles.from_text(text))
        assert section_names(spec) == ["first", "second"]
        assert sections["first"].name == "first"
        assert sections["second"] == {"a": 1, "b": 2}
        assert list(sections["first"].values()) == [1, 5, "text", "", True, "::1", 2, "p"]

    def test_merged(self) -> None:
        """Specs of one section are merged, the first declaration counts, and a section may be missing."""
        specs = ["[s]\nx = 1 :: int", "[s]\nx :: str\ny = 3 :: int"]
        assert load(specs, ConfigFiles.from_text(""))["s"] == {"x": 1, "y": 3}

    @pytest.mark.parametrize("spec", ["x :: int", "[s]\nx = 1 :: int :: str extra", "[s]\na b", "[s"])
    def test_unreadable(self, spec: str) -> None:
        """A line that cannot be read is shown."""
        assert f"config_spec: '{spec.splitlines()[-1]}' is not" in error(spec, "")

    def test_invalid_default(self) -> None:
        """Problems in a spec are reported together with those in the files."""
        text = error("[s]\nx :: floot\ny = z :: int\nnumber :: int", "[s]\nx = 1\nnumber = n")
        assert text.startswith("3 problems")
        assert "there is no converter 'floot'" in text
        assert re.search(r"\[s\] y = 'z': not a valid int: .* \(config_spec\)", text)


class TestFiles:
    """Which files are read, and how."""

    def test_syntax(self) -> None:
        """Files are read as n6 reads them."""
        text = (
            "[s]\nUPPER = 1\nurl = http://a/#b;c ; a comment\n# a comment\n; another\n"
            "base = x\nmade = %(base)s/100%%\nlong = one\n  two\ncolon: 3\nsame = first\nsame = last\n"
            "[S]\nother = section\n[DEFAULT]\nbase = 1\ninherited = 3\n"
        )
        sections = load(["[s]\n...", "[S]\n..."], ConfigFiles.from_text(text))
        assert sections["S"] == {"other": "section"}
        assert list(sections["s"].values()) == ["1", "http://a/#b;c", "x", "x/100%", "one\ntwo", "3", "last"]

    def test_merged(self, tmp_path: Path) -> None:
        """Of a directory and its sub-folders the numbered files count, by their paths; later ones win."""
        files = [
            write(tmp_path / "10_a.conf", "[s]\nx = 1\ny = 1\nz = %(x)s\n[DEFAULT]\nw = 1"),
            write(tmp_path / "60_b.conf", b"\xef\xbb\xbf[s]\nx = 2"),
            write(tmp_path / "a/20_c.conf", "[s]\ny = 3"),
        ]
        write(tmp_path / "notes.conf", "[s]\nx = 4")
        write(tmp_path / "70_c.conf.bak", "[s]\nx = 4")
        (tmp_path / "80_folder.conf").mkdir()
        assert config_files([str(tmp_path)]) == files
        sections = load(["[s]\nw :: int\n..."], ConfigFiles.from_paths([str(tmp_path)]))
        assert sections["s"] == {"w": 1, "x": "2", "y": "3", "z": "2"}

    def test_places(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Named paths count, else those in N6_CONFIG, else n6's; a file may have any name."""
        monkeypatch.setenv("HOME", str(tmp_path))
        paths = ("one/10_a.conf", "two/mine", ".n6/10_c.conf")
        one, two, own = (write(tmp_path / path, "") for path in paths)
        monkeypatch.setenv("N6_CONFIG", f"{one.parent}{os.pathsep}{two}")
        assert config_files() == [one, two]
        assert config_files([str(two)]) == [two]
        monkeypatch.delenv("N6_CONFIG")
        assert own in config_files()

    def test_looked_at(self, tmp_path: Path) -> None:
        """A missing option is reported with the places that were searched."""
        write(tmp_path / "10_a.conf", "")
        with pytest.raises(ConfigError, match=rf"\[s\] x: is missing \(looked at {tmp_path}; files read: 1"):
            load(["[s]\nx"], ConfigFiles.from_paths([str(tmp_path)]))

    def test_missing(self, tmp_path: Path) -> None:
        """A named path that does not exist is an error, and a link that leads nowhere, too."""
        (tmp_path / "60_a.conf").symlink_to(tmp_path / "gone")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        for name in ("no-such", "60_a.conf", "loop", ""):
            with pytest.raises(ConfigError, match=f"{name}.*: cannot be read: "):
                ConfigFiles.from_paths([str(tmp_path / name)])

    def test_forbidden(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """A named file or directory without permission is an error; below it and by default, a warning."""
        monkeypatch.delenv("N6_CONFIG", raising=False)
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            monkeypatch.setenv("HOME", name)
            path = write(Path(name, ".n6/60_a.conf"), "")
            keys = Path(name, ".n6/keys")
            keys.mkdir(0)
            with without_rights():
                assert path in config_files()
                with pytest.raises(ConfigError, match=f"{keys}: cannot be read: Permission denied"):
                    ConfigFiles.from_paths([str(keys)])
            assert f"{keys}: cannot be searched for configuration: Permission denied" in caplog.text
            path.chmod(0)
            with without_rights(), pytest.raises(ConfigError, match=f"{path}: cannot be read: Permission"):
                ConfigFiles.from_paths()
            path.parent.chmod(0)
            with without_rights():
                assert path not in config_files()
            assert f"{path.parent}: cannot be searched" in caplog.text
            path.parent.chmod(0o700)
            keys.chmod(0o700)

    def test_others_may_write(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A file or directory that others may write to is a warning; a device is not."""
        path = write(tmp_path / "60_a.conf", "[s]\nx = 1")
        path.chmod(0o664)
        ConfigFiles.from_paths([str(tmp_path), "/dev/null"])
        assert caplog.text == ""
        path.chmod(0o666)
        tmp_path.chmod(0o777)
        assert ConfigFiles.from_paths([str(tmp_path)]).has_option("s", "x")
        assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
        assert f"chmod o-w {tmp_path}\n" in caplog.text
        assert f"chmod o-w {path}\n" in caplog.text

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"[s]\nx = \xff", ": cannot be read: it is not UTF-8"),
            (b"x = secret words", ": line 1: not an option = value in a [section]"),
            (b"[s]\nx = 1\nsecret words", ": line 3: not an option = value in a [section]"),
        ],
    )
    def test_unreadable(self, data: bytes, reason: str, tmp_path: Path) -> None:
        """A file that cannot be parsed is reported with the line's number, not with its text."""
        path = write(tmp_path / "60_a.conf", data)
        with pytest.raises(ConfigError) as caught:
            ConfigFiles.from_paths([str(path)])
        assert f"{path}{reason}" in str(caught.value)
        assert "secret words" not in str(caught.value)

    @pytest.mark.parametrize(
        ("line", "option"),
        [
            ("api_key: a ; b", "api_key"),
            ("x = a ; a note", None),
            ("x = a ;b", "x"),
            ("; x = a ;b", None),
        ],
    )
    def test_cut_value(self, line: str, option: str | None, caplog: pytest.LogCaptureFixture) -> None:
        """A comment that may have been meant as part of the value is a warning, without the value."""
        ConfigFiles.from_text(f"[s]\n{line}\n", "the.conf")
        warnings = [f"the.conf: {option}: the value ends before ' ;', which begins a comment"]
        assert [record.getMessage() for record in caplog.records] == (warnings if option else [])


@contextmanager
def without_rights() -> Iterator[None]:
    """Root may read everything."""
    uid = os.geteuid()
    os.seteuid(uid or 65534)
    try:
        yield
    finally:
        os.seteuid(uid)


class TestConverters:
    """From text to values."""

    @pytest.mark.parametrize(
        ("converter", "text", "expected"),
        [
            ("str", "", ""),
            ("bytes", "ś", b"\xc5\x9b"),
            ("int", "-42", -42),
            ("date", "2010-07-19", datetime.date(2010, 7, 19)),
            ("datetime", "2010-07-19 12:39:45+02:00", datetime.datetime(2010, 7, 19, 10, 39, 45)),
            ("path", "/a/b", Path("/a/b")),
            ("path", "~/.n6cache", Path.home() / ".n6cache"),
            ("json", '{"a": [null]}', {"a": [None]}),
            ("py", "[('a',), {42: None}]", [("a",), {42: None}]),
            ("py_namespaces_dict", "{'a': {'b': 1}}", {"a": {"b": 1}}),
            ("importable_dotted_name", "os.path.join", os.path.join),
            ("download_timeout", "(12.1, 25)", (12.1, 25)),
            ("download_timeout", "30", 30),
            ("duration", "90m", 5400),
            ("list_of_str", " a, b,c ,", ["a", "b", "c"]),
            ("list_of_str", "", []),
            ("list_of_bool", "yes,No , TRUE,f, on, 0", [True, False, True, False, True, False]),
            ("list_of_datetime", "2010-07-19", [datetime.datetime(2010, 7, 19)]),
        ],
    )
    def test_value(self, converter: str, text: str, expected: Any) -> None:
        """Names and meanings are n6's; an option that is there and empty is the empty text."""
        assert value(converter, text) == expected

    @pytest.mark.parametrize(
        ("converter", "text"),
        [
            ("int", ""),
            ("bool", "maybe"),
            ("datetime", "noon"),
            ("path", "relative"),
            ("path", "~no-such-user/x"),
            ("py_namespaces_dict", "{'a': {1: 2}}"),
            ("importable_dotted_name", "no.such.thing"),
            ("duration", "90"),
        ],
    )
    def test_invalid(self, converter: str, text: str) -> None:
        """A value that does not convert is reported with section, option, value and file."""
        expected = f"[s] x = {text!r}: not a valid {converter}: "
        assert expected in (reason := error(f"[s]\nx :: {converter}", f"[s]\nx = {text}\n"))
        assert reason.endswith("(the.conf)")

    def test_custom(self) -> None:
        """A collector may bring converters of its own."""
        files = ConfigFiles.from_text("[s]\nx = a\ny = b, c")
        sections = load(["[s]\nx :: upper\ny :: list_of_upper"], files, {"upper": str.upper})
        assert sections["s"] == {"x": "A", "y": ["B", "C"]}


class TestProblems:
    """How problems are reported."""

    def test_all_at_once(self, tmp_path: Path) -> None:
        """Every problem of every section is listed, with the file that wins."""
        first = write(tmp_path / "10_a.conf", "[a]\nnumber = 1\nnumbre = 1")
        last = write(tmp_path / "20_b.conf", "[a]\nnumber = x")
        files = ConfigFiles.from_paths([str(tmp_path)])
        with pytest.raises(ConfigError) as caught:
            load(["[a]\nneeded\nnumber :: int\n[b]\nalso_needed"], files)
        head, *problems = str(caught.value).splitlines()
        assert head == "4 problems in the configuration:"
        assert "[a] needed: is missing" in problems[0]
        assert "[a] number = 'x': not a valid int: invalid literal" in problems[1]
        assert f"({last})" in problems[1]
        assert f"[a] numbre: there is no such option ({first})" in problems[2]
        assert "[b] also_needed: is missing" in problems[3]

    def test_one_short_line(self) -> None:
        """A value is shown in one short line without control characters."""
        text = error("[s]\nx :: int", "[s]\nx = a\x1b[31m\n  b\n" + "  c\n" * 1000)
        assert "\x1b" not in text
        assert [len(line) < 500 for line in text.splitlines()] == [True, True]

    @given(st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters=";"), min_size=1))
    def test_percent(self, text: str) -> None:
        """Any value is read unchanged if its percent signs are doubled."""
        assert value("str", text.replace("%", "%%")) == text

    @pytest.mark.parametrize("text", ["a = http://a/%20b", "a = %(nothing)s", "a = %(b)s\nb = %(a)s"])
    def test_bare_percent(self, text: str) -> None:
        """A bare percent sign gets a hint."""
        assert "write %% for a percent sign" in error("[s]\na\n...", f"[s]\n{text}")


PUNCTUATION = st.text("/:@#?[]{}()%&=,.'\"ab1")


class TestSecrets:
    """No secret is shown."""

    @pytest.mark.parametrize(
        "text",
        [
            "password = SECRET",
            "auth_token = SECRET %",
            'headers = {"Authorization": "Bearer SECRET"',
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
    def test_any_secret(self, text: str, before: str, after: str) -> None:
        """Whatever characters a secret has, it is not shown."""
        if text == "x = SECRET":  # only its surroundings show that it is a secret
            before = f"https://feed.example/?api_key={before}"
        if text == "x = user:SECRET@host":  # after // it would be the user of a URL, if a password follows
            after = after.replace(":", "")
        secret = f"{before}hunter2{after}"
        for doubled in (secret, secret.replace("%", "%%")):
            shown = error("[s]\n... :: int", "[s]\n" + text.replace("SECRET", doubled))
            assert "[s]" in shown
            assert "hunter2" not in shown

    def test_undeclared(self) -> None:
        """An option that is not declared is shown without its value: it may be a misspelt password."""
        text = error("[s]\npassword = :: str", "[s]\npasword = hunter2")
        assert "[s] pasword: there is no such option" in text
        assert "hunter2" not in text

    def test_repr(self) -> None:
        """A section that is logged shows no secret."""
        section = ConfigSection("s", {"password": "hunter2", "url": "http://u:hunter2@h/", "n": 1})
        assert str(section) == "<ConfigSection s: password=***, url=http://u:***@h/, n=1>"
        assert section["password"] == "hunter2"

    @pytest.mark.parametrize("before", ["/", "a://", "a.", "/?", "url: /", "/a1"])
    def test_long_text(self, before: str) -> None:
        """Any long text is masked in no time."""
        assert masked_url_text(before * 200_000 + " http://u:hunter2@h/").endswith(" http://u:***@h/")

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("404 for https://u:hunter2@h/feed?key=hunter2.", "404 for https://u:***@h/feed?***."),
            (
                "exceeded with url: /feed?key=hunter2 (Caused by X)",
                "exceeded with url: /feed?*** (Caused by X)",
            ),
            ("<a href='https://hunter2@h/'> http://h/a?b", "<a href='https://***@h/'> http://h/a?***"),
            ("https://h/hooks/T0/hunter2hunter2hunter2", "https://h/hooks/T0/***"),
            ('"GET /x?hunter2 HTTP/1.1" 200', '"GET /x?*** HTTP/1.1" 200'),
            ("https://h/x?a=b@hunter2", "https://***"),
            ("amqp://user:hunter%402@host:5672/", "amqp://user:***@host:5672/"),
            ("amqp://127.0.0.1:5672/ is down; is it? yes", "amqp://127.0.0.1:5672/ is down; is it? yes"),
            ("https://h/2026-01-01-all-indicators.csv", "https://h/2026-01-01-all-indicators.csv"),
            ("/var/lib/0123456789abcdef0123456789abcdef/x", "/var/lib/0123456789abcdef0123456789abcdef/x"),
        ],
    )
    def test_text(self, text: str, shown: str) -> None:
        """Only the secrets in the URLs of a text are hidden."""
        assert masked_url_text(text) == shown
        assert masked_url_text(shown) == shown
