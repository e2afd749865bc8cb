"""The template's own Jinja filters; cookiecutter (and copier) loads them as a local extension.

After a wrong answer the question is asked again. Before anything is written, `check_answers` checks all
answers together, also those from the command line, and reports every problem with the corrected command.
"""

from __future__ import annotations

import json
import keyword
import re
import shlex
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from jinja2 import Environment, pass_context
from jinja2.ext import Extension
from jinja2.runtime import Context

HERE = Path(__file__).resolve().parent
DEFAULT_TEMPLATE = "gh:org/n6-stateful"
SOURCE_MAX_LENGTH = 32
# n6's raw type, where it follows from the answer `shape`.
RAW_TYPES = {"rows": "file", "list": "blacklist"}
# Answers that are only read from the command line.
_NOT_ASKED = ("_raw_type", "_content_type", "_author")
# Questions that a shape does not need.
_NOT_NEEDED = {"email": ("url", "download", "scheduler"), "feed": ("download",)}

# Names that the generated project, its tests, or packages installed beside it use.
_TAKEN = (
    "n6_stateful n6_stateful_runtime pika amqp vine requests stamina tenacity urllib3 certifi idna "
    "feedparser sgmllib psycopg psycopg_binary pymysql pythonjsonlogger matplotlib charset_normalizer "
    "src tests test test_collector test_download conftest vendor "
    "pytest py pluggy iniconfig packaging pygments mypy mypyc mypy_extensions typing_extensions pathspec "
    "librt ast_serialize ruff tox uv pip setuptools wheel flit_core "
    "n6 n6lib n6corelib n6datasources n6datapipeline n6sdk"
)
TAKEN_NAMES = frozenset(_TAKEN.split())
_URL_PUNCTUATION = "-._~:/?#[]@!$&'()*+,;=%"
_SECRET_PARAMETER = re.compile(
    r"(?i)(^|[-_.])(key|token|secret|sig|signature|auth|password|passwd|pwd)$|apikey|accesskey|authkey|token$|secret"
)
# cookiecutter imports this module in the directory where it was started, and renders elsewhere.
_STARTED_IN = Path.cwd()


def class_name(collector_name: str) -> str:
    """`my_feed` -> `MyFeedCollector`."""
    words = [word for word in collector_name.split("_") if word]
    if len(words) > 1 and words[-1] == "collector":
        words.pop()
    return "".join(word.capitalize() for word in words) + "Collector"


def command_name(collector_name: str) -> str:
    """`my_feed` -> `n6collector_myfeed`, as n6 names its collectors' commands."""
    return "n6collector_" + class_name(collector_name).lower().replace("collector", "")


def raw_type(answers: Mapping[str, str]) -> str:
    """n6's raw type: `_raw_type` if it was given, else what follows from the shape."""
    return answers["_raw_type"] or RAW_TYPES.get(answers["shape"], "stream")


def content_type(answers: Mapping[str, str]) -> str:
    """The MIME type of the messages' bodies; a stream has none."""
    if answers["_content_type"] or raw_type(answers) == "stream":
        return answers["_content_type"]
    return "text/plain" if answers["shape"] == "list" else "text/csv"


def gets_http(answers: Mapping[str, str]) -> bool:
    """Whether the generated class downloads `url` itself."""
    return answers["download"] == "http" or answers["shape"] == "feed"


def holes(answers: Mapping[str, str]) -> list[str]:
    """The methods that the user must write."""
    download = {
        "download": ["_download"],
        "rows": ["obtain_orig_data"],
        "items": ["obtain_items"],
        "list": ["obtain_data_body"],
    }
    rest = {
        "rows": ["pick_raw_row_time", "clean_row_time"],
        "items": ["item_key"],
        "pages": ["download_page"],
        "email": ["obtain_data_body"],
    }
    shape = answers["shape"]
    return ([] if gets_http(answers) else download.get(shape, [])) + rest.get(shape, [])


def extras(answers: Mapping[str, str]) -> str:
    """The extras of the runtime that the project needs, as in a requirement: `[http,sql]`."""
    needed = {
        "feed": answers["shape"] == "feed",
        "http": gets_http(answers),
        "sql": answers["scheduler"] == "kubernetes",
    }
    names = ",".join(name for name, is_needed in needed.items() if is_needed)
    return f"[{names}]" if names else ""


def toml(text: str) -> str:
    """`text` as a TOML string; `tojson` would write surrogates, which TOML does not have."""
    return json.dumps(text, ensure_ascii=False)


def template_directory(_: str) -> str:
    """The directory of this template; a hook runs from a copy elsewhere."""
    return str(HERE)


@pass_context
def template_source(context: Context, answers: Mapping[str, object]) -> str:
    """The template as it was given to cookiecutter (or copier), in a form that works in any directory."""
    from_copier = context.get("_copier_answers", {}).get("_src_path")
    given = str(answers.get("_template") or from_copier or DEFAULT_TEMPLATE)
    path = _STARTED_IN / given
    return str(path.resolve()) if path.exists() else _without_credentials(given)


def template_repository(_: object) -> str:
    """The git repository of this template, as pip expects it after `git+`; empty if there is none."""
    if not (HERE / ".git").exists():  # a zip, say
        return ""
    origin = subprocess.run(
        ["git", "-C", HERE, "config", "--get", "remote.origin.url"], capture_output=True, text=True
    ).stdout.strip()
    if not origin:
        return HERE.as_uri()
    if "://" not in origin:
        path = HERE / origin
        return path.resolve().as_uri() if path.exists() else "ssh://" + origin.replace(":", "/", 1)
    return _without_credentials(origin)


def _without_credentials(url: str) -> str:
    return re.sub(r"^((?:git\+)?https?://)[^/@]*@", r"\1", url)


def schedule(answers: Mapping[str, object]) -> str:
    """Every ten minutes in cron's notation, from a minute that depends on the collector."""
    names = f"{answers['source_provider']}.{answers['source_channel']}.{answers['collector_name']}"
    return f"{zlib.crc32(names.encode()) % 10}-59/10 * * * *"


# Each check returns the problem, or an empty string; the function after it suggests another value.


def _check_collector_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        return "must be a Python package name: lowercase ASCII letters, digits and _, a letter first"
    if name.endswith("_") or "__" in name:
        return "has one _ too many"
    if len(name) > 30:
        return f"is too long ({len(name)} characters; 30 are allowed)"
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return "is a Python keyword"
    if name in sys.stdlib_module_names:
        return "is the name of a module of Python's standard library"
    if name in TAKEN_NAMES:
        return "is a name that the project needs for something else"
    if command_name(name) == "n6collector_":
        return "leaves no name for the command"
    return ""


def _suggest_collector_name(name: str) -> str:
    suggested = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]+", "_", name.lower())).strip("_")[:25].strip("_")
    if not suggested or not suggested[0].isalpha():
        suggested = f"feed_{suggested}".strip("_")
    return f"{suggested}_feed" if _check_collector_name(suggested) else suggested


def _check_source_part(part: str) -> str:
    if re.fullmatch(r"[a-z0-9-]+", part):
        return ""
    return "must be lowercase ASCII letters, digits and hyphens (n6's rule)"


def _suggest_source_part(part: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") or "example"


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        return f"is not a URL ({exc})"
    if parts.scheme not in ("http", "https", "ftp", "ftps", "sftp", "file") or not parts[1] + parts[2]:
        return "has to begin with https:// (or http, ftp, ftps, sftp, file)"
    if parts.scheme != "file" and not parts.hostname:
        return "names no host"
    if not re.fullmatch(rf"[A-Za-z0-9{re.escape(_URL_PUNCTUATION)}]+", url):
        return "has characters that a URL must write as %XX (spaces, quotes, < >, { }, non-ASCII letters...)"
    if _mask_url(url) != url:
        return (
            "seems to hold a key or a password, and would be written into files that are shared: leave it "
            "out, and put it where the project's README.md says"
        )
    return ""


def _mask_url(url: str, mask: str = "***") -> str:
    """The URL with apparent secrets replaced by `mask`; with `mask=""`, removed."""
    authority, slashes, rest = url.partition("//")
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    path = rest[len(netloc) :]
    user, at, host = netloc.rpartition("@")
    if at and (":" in user or authority in ("http:", "https:")):
        netloc = f"{mask}@{host}" if mask else host
    path, question, query = path.partition("?")
    query, hash_, fragment = query.partition("#")
    pairs = []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if not (value and _SECRET_PARAMETER.search(unquote(name))):
            pairs.append(pair)
        elif mask:
            pairs.append(f"{name}={mask}")
    query = "&".join(pairs)
    return f"{authority}{slashes}{netloc}{path}{question if query or mask else ''}{query}{hash_}{fragment}"


def _suggest_url(url: str) -> str:
    suggested = quote(_mask_url(url, ""), safe=_URL_PUNCTUATION, errors="replace")
    return "https://feed.example/new.csv" if _check_url(suggested) else suggested


def _check_raw_type(name: str) -> str:
    return "" if name in ("", *RAW_TYPES.values(), "stream") else "must be 'stream', 'file' or 'blacklist'"


def _check_content_type(name: str) -> str:
    word = r"[A-Za-z0-9][A-Za-z0-9.+-]*"
    return "" if re.fullmatch(f"({word}/{word})?", name) else "must be a MIME type like text/csv"


def _check_author(author: str) -> str:
    if author.isprintable() and len(author) <= 200:
        return ""
    return "must be one printable line of at most 200 characters"


_CHECKS: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "collector_name": (_check_collector_name, _suggest_collector_name),
    "source_provider": (_check_source_part, _suggest_source_part),
    "source_channel": (_check_source_part, _suggest_source_part),
    "url": (_check_url, _suggest_url),
    "_raw_type": (_check_raw_type, lambda value: ""),
    "_content_type": (_check_content_type, lambda value: ""),
    "_author": (_check_author, lambda value: ""),
}


def find_problems(answers: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """All problems with the answers, and answers without these problems."""
    problems = []
    better = {name: str(value) for name, value in answers.items() if not name.startswith("__")}
    for name, (check, suggest) in _CHECKS.items():
        if problem := check(better[name]):
            shown = _mask_url(better[name]) if name == "url" else better[name]
            problems.append(f"{name} = {shown!r} {problem}")
            better[name] = suggest(better[name])
    for problem, instead in _find_conflicts(better):
        problems.append(problem)
        better |= instead
    return problems, better


def _find_conflicts(answers: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Problems with the combination of valid answers, and what to answer instead."""
    scheme = urlsplit(answers["url"]).scheme
    shape, download, scheduler = answers["shape"], answers["download"], answers["scheduler"]
    if answers["_content_type"] and raw_type(answers) == "stream":
        yield "_content_type goes with _raw_type = file or blacklist", {"_content_type": ""}
    if shape == "email" and download == "http":
        yield "download = http: with shape = email there is nothing to download", {"download": "fill in"}
    elif shape == "feed" and scheme not in ("http", "https"):
        yield f"shape = feed needs an http:// or https:// URL, not {scheme}:", {"shape": "items"}
    elif download == "http" and scheme not in ("http", "https"):
        yield f"download = http needs an http:// or https:// URL, not {scheme}:", {"download": "fill in"}
    if shape == "email" and scheduler in ("systemd", "kubernetes"):
        yield (
            f"scheduler = {scheduler}: with shape = email each mail starts the collector",
            {"scheduler": "none"},
        )
    if answers["runtime_source"] == "git" and not template_repository(answers):
        yield (
            "runtime_source = git needs a template from git; this one is a copy without .git",
            {"runtime_source": "vendored"},
        )
    provider, channel = answers["source_provider"], answers["source_channel"]
    if len(f"{provider}.{channel}") > SOURCE_MAX_LENGTH:
        yield (
            f"source_provider and source_channel make '{provider}.{channel}': {len(provider + channel) + 1} "
            f"characters, n6 allows {SOURCE_MAX_LENGTH}",
            {
                "source_provider": provider[:15].strip("-") or "example",
                "source_channel": channel[:16].strip("-") or "example",
            },
        )


def check_answers(answers: Mapping[str, Any]) -> str:
    """Raise if there are problems, with the corrected command; else return an empty string.

    Raises:
        FailedHookException: cookiecutter prints its text and exits before anything is written.
    """
    from cookiecutter.exceptions import FailedHookException

    if "collector_name" not in answers:  # a replay: only the questions that it does not answer
        return ""
    problems, better = find_problems(answers)
    problems += [
        f"{word.partition('=')[0]}= is not a question of this template"
        for word in _words()
        if re.match(r"\w+=", word) and word.partition("=")[0] not in answers
    ]
    if problems:
        listing = "\n".join(f"  - {problem}" for problem in problems)
        raise FailedHookException(
            f"{len(problems)} answer{'s' if len(problems) > 1 else ''} cannot be used; nothing was written:\n"
            f"{listing}\n\nThe corrected command:\n\n  {_command(better)}\n"
        )
    return ""


def problem_with(value: str, name: str) -> str:
    """The problem with one answer, for copier; an empty string if there is none."""
    return _CHECKS[name][0](value)


def list_problems(answers: Mapping[str, str]) -> str:
    """The problems with all answers, for copier; an empty string if there are none."""
    return "; ".join(find_problems(answers)[0])


def _words() -> list[str]:
    """The words of cookiecutter's command line; none if another program runs."""
    program = Path(sys.argv[0])
    return sys.argv[1:] if program.stem == "cookiecutter" or "cookiecutter" in program.parts else []


def _command(answers: Mapping[str, str]) -> str:
    """The command line that was given, with these answers in place of its own."""
    options = [word for word in _words() if not re.match(r"\w+=|--no-input$|--replay$", word)]
    named = [
        f"{name}={value}"
        for name, value in answers.items()
        if not name.startswith("_") or (name in _NOT_ASKED and value)
    ]
    return shlex.join(["cookiecutter", *(options or [DEFAULT_TEMPLATE]), "--no-input", *named])


def ask_well() -> None:
    """Make cookiecutter leave out questions that the shape does not need, and ask again after a wrong answer.

    It has no option for that, so this wraps its two functions that ask. If they are missing, every question
    is asked, and `check_answers` reports the problems at the end.
    """
    from cookiecutter import prompt

    questions = json.loads((HERE / "cookiecutter.json").read_text())
    answers = {name: value[0] if isinstance(value, list) else value for name, value in questions.items()}

    def wrap(ask: Callable[..., str]) -> Callable[..., str]:
        @wraps(ask)
        def ask_until_good(name: str, default: Any, *args: Any, **kwargs: Any) -> str:
            if name in _NOT_NEEDED.get(answers["shape"], ()):
                return str(default[0] if isinstance(default, list) else default)
            while True:
                answers[name] = ask(name, default, *args, **kwargs)
                problems, _ = find_problems(answers)
                if not problems:
                    return str(answers[name])
                print(*(f"      {problem}" for problem in problems), sep="\n")

        return ask_until_good

    for name in ("read_user_variable", "read_user_choice"):
        ask = getattr(prompt, name, None)
        if ask is not None and not hasattr(ask, "__wrapped__"):
            setattr(prompt, name, wrap(ask))


class AnswersExtension(Extension):
    """Adds this module's filters to cookiecutter's environment."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        if _words():
            ask_well()
        filters: list[Callable[..., object]] = [
            check_answers, class_name, command_name, content_type, extras, gets_http, holes, list_problems,
            problem_with, raw_type, schedule, template_directory, template_repository, template_source, toml,
        ]  # fmt: skip
        environment.filters.update({func.__name__: func for func in filters}, shell_quote=shlex.quote)
