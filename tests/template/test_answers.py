"""Which answers are refused, and that nothing is written then."""

from __future__ import annotations

import json
import keyword
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from n6_stateful_template import check_answers, class_name, command_name, content_type, raw_type
from tests.template.conftest import ROOT, Bake, call_cookiecutter, do, words

QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text())
GOOD = {name: value[0] if isinstance(value, list) else value for name, value in QUESTIONS.items()}
HOSTILE = [
    "", " ", "a b", "Upper", "ąę", 'quo"te', "quo'te", "back\\slash", "new\nline", "{braces}", "{{ 7 * 7 }}",
    "<<7*7>>", "<% raise %>", "%(x)s", "$(touch /tmp/x)", "`touch x`", "../up", "/root", "nul\0", "a" * 100,
]  # fmt: skip


def problems(**answers: str) -> str:
    try:
        check_answers({**GOOD, **answers})
    except Exception as exc:
        return str(exc)
    return ""


def accepted(name: str, *values: str, **others: str) -> list[str]:
    return [value for value in values if not problems(**{**others, name: value})]


class TestNames:
    """The names of collector and source."""

    def test_collector(self) -> None:
        """Hostile names, and those that would break the project, are refused; names of packages are not."""
        breaking = [
            "json",
            "n6_stateful",
            "n6",
            "pluggy",
            "conftest",
            "collector",
            "_feed",
            "feed_",
            "a__b",
            "1st",
        ]
        reserved = [*keyword.kwlist, *keyword.softkwlist, *sys.stdlib_module_names]
        assert accepted("collector_name", *HOSTILE, *breaking, *reserved) == []
        good = ["a", "feed", "my_feed", "urlhaus2", "x1_y2_collector"]
        assert accepted("collector_name", *good) == good

    def test_source(self) -> None:
        """A source must fit n6's pattern, and has at most 32 characters."""
        for name in ("source_provider", "source_channel"):
            assert accepted(name, *HOSTILE, "two.parts", "under_score") == []
        assert not problems(source_provider="a" * 15, source_channel="b" * 16)
        assert "33 characters" in problems(source_provider="a" * 16, source_channel="b" * 16)

    def test_n6_names(self) -> None:
        """Class and command are named as n6 names them."""
        assert (class_name("my_feed"), command_name("my_feed")) == ("MyFeedCollector", "n6collector_myfeed")
        assert class_name("my_feed_collector") == "MyFeedCollector"


class TestUrl:
    """Where the data is."""

    def test_form(self) -> None:
        """What is not a URL, or has a password, is refused; others are not."""
        bad = ["h", "javascript:alert(1)", "https://", "https://u:p@h/", "https://a/b c", "https://a:port/"]
        assert accepted("url", *HOSTILE, *bad) == []
        good = [
            "http://192.0.2.1:8080/a/b.csv?x=1&y=%20#frag", "https://[2001:db8::1]/", "file:///srv/feed.csv",
            "https://a/'(;$)*", "https://h/x?monkey=1", "https://h/x?key=", "ftp://anonymous@h/x",
        ]  # fmt: skip
        assert accepted("url", *good) == good

    @pytest.mark.parametrize(
        ("url", "masked", "better"),
        [
            ("https://me:hidden@h/x", "https://***@h/x", "https://h/x"),
            ("https://hidden@h/x", "https://***@h/x", "https://h/x"),
            (
                "https://h/?a=1&api_key=hidden&b=2#c",
                "https://h/?a=1&api_key=***&b=2#c",
                "https://h/?a=1&b=2#c",
            ),
            ("https://h/new x?sig=hidden", "https://h/new x?sig=***", "https://h/new%20x"),
        ],
    )
    def test_secret(self, url: str, masked: str, better: str) -> None:
        """A secret in it is refused and not shown, and the corrected command does without it."""
        text = problems(url=url)
        assert "hidden" not in text
        assert repr(masked) in text
        assert f"url={better}" in text.replace("'", "")


class TestTogether:
    """Answers that must fit each other."""

    def test_types(self) -> None:
        """Type and content type follow from the shape, unless they are given."""
        made = [(raw_type(answers), content_type(answers)) for answers in (GOOD, {**GOOD, "shape": "list"})]
        assert made == [("stream", ""), ("blacklist", "text/plain")]
        assert content_type({**GOOD, "shape": "rows"}) == "text/csv"
        assert raw_type({**GOOD, "shape": "list", "_raw_type": "file"}) == "file"
        assert "must be 'stream', 'file' or 'blacklist'" in problems(_raw_type="table")
        assert "_content_type goes with" in problems(_content_type="text/csv")
        mimes = (*HOSTILE[1:], "text", "text/", "text/csv; charset=utf-8", "application/json")
        assert accepted("_content_type", *mimes, _raw_type="file") == ["application/json"]
        assert accepted("_author", "new\nline", "\x1b[31m", "a" * 201, "O'Neil") == ["O'Neil"]

    def test_without_effect(self) -> None:
        """Answers that could have no effect are refused."""
        text = problems(shape="email", download="http", scheduler="systemd")
        assert "nothing to download" in text
        assert "each mail starts the collector" in text
        assert "download = http needs" in problems(download="http", url="ftp://feed.example/x")
        assert "shape = feed needs" in problems(shape="feed", url="ftp://feed.example/x")

    @pytest.mark.parametrize(
        "name", ["collector_name", "source_provider", "source_channel", "url", "_author"]
    )
    def test_suggestions(self, name: str) -> None:
        """The corrected command is accepted."""
        for value in (*HOSTILE, "-" * 40, "1" * 40, "class", "json", "x" * 40):
            text = problems(**{name: value}, _raw_type="file", _content_type="x", download="http")
            (command,) = (line for line in text.splitlines() if line.startswith("  cookiecutter "))
            assert not problems(**dict(word.split("=", 1) for word in shlex.split(command) if "=" in word))


def test_command_line(tmp_path: Path) -> None:
    """All problems are reported together, nothing is written, and the corrected command can be pasted."""
    bad = {"collector_name": "Class!", "source_provider": "x" * 40, "url": "a b", "colour": "red"}
    done = call_cookiecutter(tmp_path, "--no-input", "-o", "some where", *words(bad))
    assert done.returncode == 1
    text = done.stdout + done.stderr
    assert "Traceback" not in text
    for part in ("4 answers", "'Class!'", "characters, n6 allows", "'a b'", "colour= is not a question"):
        assert part in text
    assert [path.name for path in tmp_path.iterdir()] == [".home"]
    (command,) = (line.strip() for line in text.splitlines() if line.startswith("  cookiecutter "))
    do("sh", "-c", command.replace("cookiecutter", f"{sys.executable} -m cookiecutter", 1), cwd=tmp_path)
    assert (tmp_path / "some where/class_feed").is_dir()


def test_not_executed(bake: Bake, tmp_path: Path) -> None:
    """Nothing in an answer is executed."""
    bad = r'''"""+open("x", "w")+r""" \ ' {{7*7}} <<7*7>> <% raise %> $(touch x) `touch x` %(x)s 😀'''
    project = bake(_author=bad, license="MIT")
    assert not list(tmp_path.rglob("x"))
    assert f"Copyright (c) {bad}\n" in project.read("LICENSE")
    assert tomllib.loads(project.read("pyproject.toml"))["project"]["authors"] == [{"name": bad}]


class TestQuestions:
    """Answers that are typed."""

    def test_wrong_answer(self, tmp_path: Path) -> None:
        """A wrong answer is reported at once, and asked for again."""
        typed = [
            "class",
            "my_feed",
            "Evil_Corp",
            "evil-corp",
            "x" * 40,
            "channel",
            "1",
            "ftp://h/x",
            "2",
            *"1111",
        ]
        done = call_cookiecutter(tmp_path, input="\n".join(typed) + "\n")
        assert done.returncode == 0, done.stdout + done.stderr
        for problem in (
            "is a Python keyword",
            "(n6's rule)",
            "n6 allows 32",
            "download = http needs an http",
        ):
            assert done.stdout.count(problem) == 1
        assert "source = evil-corp\n" in (tmp_path / "my_feed/etc/60_my_feed.conf").read_text()

    @pytest.mark.parametrize(("shape", "number", "asked"), [("feed", 5, 8), ("email", 7, 6)])
    def test_not_needed(self, shape: str, number: int, asked: int, tmp_path: Path) -> None:
        """Nothing is asked that the shape does not need."""
        done = call_cookiecutter(tmp_path, input=f"\n\n\n{number}\n" + "\n" * (asked - 4))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("/9]") == asked
        assert f'"shape": "{shape}"' in (tmp_path / "my_feed/.cookiecutter.json").read_text()
