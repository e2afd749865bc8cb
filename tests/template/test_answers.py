"""Which answers are refused, what is said of them, and that nothing is written then."""

from __future__ import annotations

import keyword
import shlex
import sys
from pathlib import Path

import pytest

from n6_stateful_template import check_answers, class_name, command_name
from tests.template.conftest import Cookiecutter

GOOD = {
    "collector_name": "my_feed",
    "source_provider": "my-provider",
    "source_channel": "my-channel",
    "raw_type": "stream",
    "content_type": "",
    "url": "https://feed.example/new.csv",
    "_author": "",
}
HOSTILE = [
    "",
    " ",
    "a b",
    "Upper",
    "ąę",
    'quo"te',
    "quo'te",
    "back\\slash",
    "new\nline",
    "{braces}",
    "{{ 7 * 7 }}",
    "<<7*7>>",
    "<% raise %>",
    "%(x)s",
    "$(touch /tmp/x)",
    "`touch x`",
    "../up",
    "/root",
    "-option",
    "nul\0",
    "a" * 100,
]


def problems(**answers: str) -> str:
    try:
        check_answers({**GOOD, **answers})
    except Exception as exc:
        return str(exc)
    return ""


def test_the_defaults_are_accepted() -> None:
    assert not problems()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_collector_names_are_refused(name: str) -> None:
    assert problems(collector_name=name)


@pytest.mark.parametrize(
    "name",
    [
        "class",
        "match",
        "json",
        "logging",
        "n6_stateful",
        "tests",
        "conftest",
        "collector",
        "_feed",
        "feed_",
        "a__b",
        "1st",
    ],
)
def test_names_that_would_break_the_project_are_refused(name: str) -> None:
    assert problems(collector_name=name)


def test_no_keyword_and_no_module_of_the_standard_library_is_accepted_as_a_name() -> None:
    names = [*keyword.kwlist, *keyword.softkwlist, *sys.stdlib_module_names]
    assert [name for name in names if not problems(collector_name=name)] == []


@pytest.mark.parametrize("name", ["a", "feed", "my_feed", "urlhaus2", "x1_y2_collector"])
def test_package_names_are_accepted(name: str) -> None:
    assert not problems(collector_name=name)


@pytest.mark.parametrize("part", [*HOSTILE, "two.parts", "under_score"])
@pytest.mark.parametrize("name", ["source_provider", "source_channel"])
def test_sources_that_break_n6s_pattern_are_refused(name: str, part: str) -> None:
    if part != "-option":  # n6 allows it
        assert problems(**{name: part})


def test_a_source_has_at_most_32_characters() -> None:
    assert not problems(source_provider="a" * 15, source_channel="b" * 16)
    assert "33 characters" in problems(source_provider="a" * 16, source_channel="b" * 16)


@pytest.mark.parametrize(
    "url",
    [
        *HOSTILE,
        "feed.example",
        "javascript:alert(1)",
        "https://",
        "https://u:secret@feed.example/",
        "https://a/b c",
        "https://a:port/",
    ],
)
def test_what_is_no_url_or_holds_a_password_is_refused(url: str) -> None:
    assert problems(url=url)


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1:8080/a/b.csv?x=1&y=%20#frag",
        "https://[2001:db8::1]/",
        "file:///srv/feed.csv",
        "https://a/'(;$)*",
    ],
)
def test_urls_are_accepted(url: str) -> None:
    assert not problems(url=url)


@pytest.mark.parametrize("content_type", [*HOSTILE[1:], "text", "text/", "text/csv; charset=utf-8"])
def test_what_is_no_mime_type_is_refused(content_type: str) -> None:
    assert problems(content_type=content_type, raw_type="file")


def test_files_and_blacklists_need_a_content_type() -> None:
    assert "content_type is needed" in problems(raw_type="file")
    assert not problems(raw_type="blacklist", content_type="application/json")


@pytest.mark.parametrize("author", ["new\nline", "\x1b[31m", "a" * 201])
def test_an_author_is_one_printable_line(author: str) -> None:
    assert problems(_author=author)


def test_class_and_command_are_named_as_n6_names_them() -> None:
    assert (class_name("my_feed"), command_name("my_feed")) == ("MyFeedCollector", "n6collector_myfeed")
    assert class_name("my_feed_collector") == "MyFeedCollector"


def test_all_problems_are_told_at_once_and_nothing_is_written(
    cookiecutter: Cookiecutter, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    done = cookiecutter(
        collector_name="My Feed",
        source_provider="Evil_Corp",
        url="nowhere",
        raw_type="file",
        content_type="x",
    )
    assert done.returncode == 1
    for told in ("4 answers", "'My Feed'", "'Evil_Corp'", "'nowhere'", "content_type"):
        assert told in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_the_corrected_command_can_be_pasted(cookiecutter: Cookiecutter, tmp_path: Path) -> None:
    done = cookiecutter(
        collector_name="Class!", source_provider="x" * 40, url="a b", raw_type="file", content_type=""
    )
    lines = (done.stdout + done.stderr).splitlines()
    (command,) = (line.strip() for line in lines if line.strip().startswith("cookiecutter "))
    _, _, no_input, *words = shlex.split(command)
    assert no_input == "--no-input"
    again = cookiecutter(**dict(word.split("=", 1) for word in words))
    assert again.returncode == 0, again.stdout + again.stderr
    assert (tmp_path / "class_feed").is_dir()


def test_a_misspelt_question_is_told(cookiecutter: Cookiecutter) -> None:
    done = cookiecutter(colector_name="my_feed")
    assert done.returncode == 1
    assert "did you mean collector_name=?" in done.stderr + done.stdout
