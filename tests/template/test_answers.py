"""Which answers are refused, what is said of them, and that nothing is written then."""

from __future__ import annotations

import keyword
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from n6_stateful_template import check_answers, class_name, command_name, content_type, raw_type
from tests.template.conftest import ROOT, Bake, Cookiecutter, do, run

GOOD = {
    "collector_name": "my_feed",
    "source_provider": "my-provider",
    "source_channel": "my-channel",
    "shape": "download",
    "url": "https://feed.example/new.csv",
    "download": "fill in",
    "scheduler": "cron",
    "runtime_source": "vendored",
    "_raw_type": "",
    "_content_type": "",
    "_author": "",
}
COMMAND = str(Path(sys.executable).with_name("cookiecutter"))
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
def test_hostile_names(name: str) -> None:
    """Hostile collector names are refused."""
    assert problems(collector_name=name)


@pytest.mark.parametrize(
    "name",
    [
        "class",
        "match",
        "json",
        "logging",
        "n6_stateful",
        "n6_stateful_runtime",
        "n6",
        "test_collector",
        "pluggy",
        "tests",
        "conftest",
        "collector",
        "_feed",
        "feed_",
        "a__b",
        "1st",
    ],
)
def test_breaking_names(name: str) -> None:
    """Names that would break the project are refused."""
    assert problems(collector_name=name)


def test_taken_names() -> None:
    """No keyword and no module of the standard library is accepted as a name."""
    names = [*keyword.kwlist, *keyword.softkwlist, *sys.stdlib_module_names]
    assert [name for name in names if not problems(collector_name=name)] == []


@pytest.mark.parametrize("name", ["a", "feed", "my_feed", "urlhaus2", "x1_y2_collector"])
def test_package_names_are_accepted(name: str) -> None:
    assert not problems(collector_name=name)


@pytest.mark.parametrize("part", [*HOSTILE, "two.parts", "under_score"])
@pytest.mark.parametrize("name", ["source_provider", "source_channel"])
def test_wrong_sources(name: str, part: str) -> None:
    """Sources that break n6's pattern are refused."""
    if part != "-option":  # n6 allows it
        assert problems(**{name: part})


def test_long_source() -> None:
    """A source has at most 32 characters."""
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
def test_wrong_url(url: str) -> None:
    """What is not a URL, or holds a password, is refused."""
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


@pytest.mark.parametrize(
    ("url", "masked", "mended"),
    [
        ("https://me:hidden@h/x", "https://***@h/x", "https://h/x"),
        ("https://hidden@h/x", "https://***@h/x", "https://h/x"),
        ("https://h/x?key=hidden", "https://h/x?key=***", "https://h/x"),
        (
            "https://h/x?a=1&api_key=hidden&b=2#c",
            "https://h/x?a=1&api_key=***&b=2#c",
            "https://h/x?a=1&b=2#c",
        ),
        ("https://h/x?accessToken=hidden", "https://h/x?accessToken=***", "https://h/x"),
        ("https://h/new x?sig=hidden", "https://h/new x?sig=***", "https://h/new%20x"),
    ],
)
def test_a_secret_in_the_url(url: str, masked: str, mended: str) -> None:
    """It is refused and shown to nobody, and the corrected command does without it."""
    told = problems(url=url)
    assert "hidden" not in told
    assert repr(masked) in told
    assert f"url={mended}" in told.replace("'", "")


@pytest.mark.parametrize(
    "url", ["https://h/x?monkey=1", "https://h/x?key=", "https://h/?", "ftp://anonymous@h/x", "sftp://me@h/x"]
)
def test_no_secret_in_the_url(url: str) -> None:
    """What only looks a little like a secret is accepted."""
    assert not problems(url=url)


def test_a_url_is_encoded() -> None:
    """The corrected command has the same URL, as a URL is written."""
    assert "url=http://h/new%20csv " in problems(url="http://h/new csv")


@pytest.mark.parametrize("mime", [*HOSTILE[1:], "text", "text/", "text/csv; charset=utf-8"])
def test_wrong_mime_type(mime: str) -> None:
    """What is not a MIME type is refused."""
    assert problems(_content_type=mime, _raw_type="file")


def test_raw_types() -> None:
    """n6's raw type follows from the shape, unless it is given; only n6's own are taken."""
    assert raw_type(GOOD) == "stream"
    assert raw_type({**GOOD, "shape": "list"}) == "blacklist"
    assert raw_type({**GOOD, "shape": "list", "_raw_type": "file"}) == "file"
    assert "must be 'stream', 'file' or 'blacklist'" in problems(_raw_type="table")


def test_content_types() -> None:
    """A file is text/csv unless another type is given; a stream has none, so one is refused."""
    assert content_type(GOOD) == ""
    assert content_type({**GOOD, "shape": "rows"}) == "text/csv"
    assert not problems(_raw_type="blacklist", _content_type="application/json")
    assert "_content_type = text/csv goes with" in problems(_content_type="text/csv")


def test_mail() -> None:
    """Answers that could have no effect are refused."""
    told = problems(shape="email", download="http", scheduler="systemd")
    assert "download = http has nothing to get" in told
    assert "scheduler = systemd has nothing to start" in told
    assert not problems(shape="email")


def test_http_url() -> None:
    """`download = http` takes http and https URLs only."""
    assert "download = http" in problems(download="http", url="ftp://feed.example/new.csv")
    assert not problems(download="fill in", url="ftp://feed.example/new.csv")


@pytest.mark.parametrize("name", ["collector_name", "source_provider", "source_channel", "url", "_author"])
@pytest.mark.parametrize("value", [*HOSTILE, "-" * 40, "1" * 40, "class", "json", "x" * 40])
def test_suggestions(name: str, value: str) -> None:
    """What is suggested in place of a refused answer is accepted."""
    told = problems(**{name: value}, _raw_type="file", _content_type="x", download="http")
    (command,) = (line for line in told.splitlines() if line.startswith("  cookiecutter "))
    words = [word.split("=", 1) for word in shlex.split(command) if "=" in word]
    assert not problems(**dict(words))


@pytest.mark.parametrize("author", ["new\nline", "\x1b[31m", "a" * 201])
def test_author(author: str) -> None:
    """An author is one printable line."""
    assert problems(_author=author)


def test_n6_names() -> None:
    """Class and command are named as n6 names them."""
    assert (class_name("my_feed"), command_name("my_feed")) == ("MyFeedCollector", "n6collector_myfeed")
    assert class_name("my_feed_collector") == "MyFeedCollector"


def test_all_at_once(cookiecutter: Cookiecutter, tmp_path: Path) -> None:
    """All problems are told at once, and nothing is written."""
    done = cookiecutter(
        collector_name="My Feed",
        source_provider="Evil_Corp",
        url="nowhere",
        _raw_type="file",
        _content_type="x",
    )
    assert done.returncode == 1
    for told in ("4 answers", "'My Feed'", "'Evil_Corp'", "'nowhere'", "_content_type"):
        assert told in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".home"]


def test_corrected_command(cookiecutter: Cookiecutter, tmp_path: Path) -> None:
    """The corrected command can be pasted."""
    done = cookiecutter(
        collector_name="Class!", source_provider="x" * 40, url="a b", _raw_type="file", shape="rows"
    )
    lines = (done.stdout + done.stderr).splitlines()
    (command,) = (line.strip() for line in lines if line.strip().startswith("cookiecutter "))
    command = command.replace("cookiecutter", f"{sys.executable} -m cookiecutter", 1)
    do("sh", "-c", command, cwd=tmp_path)
    assert (tmp_path / "class_feed").is_dir()


def test_template_and_options(cookiecutter: Cookiecutter) -> None:
    """The corrected command keeps template and options."""
    done = cookiecutter("-o", "some where", "--checkout", "v0.1.0", collector_name="class")
    told = done.stdout + done.stderr
    assert f"{ROOT} -o 'some where' --checkout v0.1.0 --no-input collector_name=class_feed" in told


def test_typed_answers(tmp_path: Path) -> None:
    """Answers typed at the questions are checked as well."""
    typed = "class\n\n\n1\nnowhere\n1\n1\n1\n1\n"
    done = run(
        sys.executable, "-m", "cookiecutter", ROOT, cwd=tmp_path, input=typed, env={"HOME": str(tmp_path)}
    )
    assert done.returncode == 1
    assert "2 answers cannot be used" in done.stdout + done.stderr
    assert not (tmp_path / "class").exists()


def test_no_answer_is_executed(bake: Bake, tmp_path: Path) -> None:
    bad = r'''"""+open("x", "w")+r""" \ ' {{7*7}} <<7*7>> <% raise %> $(touch x) `touch x` %(x)s 😀'''
    project = bake(_author=bad, license="MIT")
    assert not list(tmp_path.rglob("x"))
    assert f"Copyright (c) {bad}\n" in (project.path / "LICENSE").read_text()
    about = tomllib.loads((project.path / "pyproject.toml").read_text())
    assert about["project"]["authors"] == [{"name": bad}]


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "cookiecutter"], [COMMAND]], ids=["-m", "command"]
)
def test_misspelt_question(command: list[str], tmp_path: Path) -> None:
    """A misspelt question is told, and the corrected command has its answer in the right place."""
    done = run(
        *command, ROOT, "--no-input", "colector_name=my_other_feed", cwd=tmp_path, env={"HOME": str(tmp_path)}
    )
    assert done.returncode == 1
    told = done.stderr + done.stdout
    assert "did you mean collector_name=?" in told
    assert " collector_name=my_other_feed " in told.partition("The corrected command")[2]
