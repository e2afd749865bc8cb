"""The template's own Jinja filters; cookiecutter (and copier) loads them as a local extension.

`check_answers` looks at all answers before anything is written, and reports every problem at once, with the
corrected command to paste.
"""

from __future__ import annotations

import difflib
import json
import keyword
import re
import shlex
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from jinja2 import Environment, pass_context
from jinja2.ext import Extension
from jinja2.runtime import Context

DEFAULT_TEMPLATE = "gh:org/n6-stateful"
SOURCE_MAX_LENGTH = 32
# n6's raw type where it was not given: what follows from the answer `shape`.
RAW_TYPES = {"rows": "file", "list": "blacklist"}
# Answers that are not asked for, but taken from the command line.
_NOT_ASKED = ("_raw_type", "_content_type", "_author")

# Names that the generated project, its tests, or what is installed beside it use.
TAKEN_NAMES = frozenset(
    name
    for names in (
        "n6_stateful n6_stateful_runtime pika amqp vine requests stamina tenacity urllib3 certifi idna",
        "sqlalchemy greenlet psycopg psycopg_binary pymysql prometheus_client pythonjsonlogger matplotlib",
        "charset_normalizer src tests test test_collector test_download conftest vendor",
        "pytest py pluggy iniconfig packaging pygments mypy mypyc mypy_extensions typing_extensions pathspec",
        "librt ast_serialize ruff tox uv pip setuptools wheel flit_core",
        "n6 n6lib n6corelib n6datasources n6datapipeline n6sdk",
    )
    for name in names.split()
)
# Words of cookiecutter's command line: an answer, and options that the corrected command has no use for.
_ANSWER = re.compile(r"\w+=.*", re.DOTALL)
_INSTEAD = ("--no-input", "--replay")
_URL_PUNCTUATION = "-._~:/?#[]@!$&'()*+,;=%"
_URL_CHARACTERS = re.compile(rf"[A-Za-z0-9{re.escape(_URL_PUNCTUATION)}]+")
_SECRET_PARAMETER = re.compile(
    r"(?i)(^|[-_.])(key|token|secret|sig|signature|auth|password|passwd|pwd)$|apikey|accesskey|authkey|token$|secret"
)
_ABBREVIATIONS = ("gh:", "gl:", "bb:")
# cookiecutter imports this module where it was started, and goes elsewhere to render.
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
    given = answers["_raw_type"] or answers.get("raw_type")  # projects of 0.1.0 were asked for it
    return given or RAW_TYPES.get(answers["shape"], "stream")


def content_type(answers: Mapping[str, str]) -> str:
    """The MIME type of the messages' bodies; a stream has none."""
    given = answers["_content_type"] or answers.get("content_type")
    if given or raw_type(answers) == "stream":
        return given or ""
    return "text/plain" if answers["shape"] == "list" else "text/csv"


def holes(answers: Mapping[str, str]) -> list[str]:
    """The methods that are to be written."""
    shape, is_filled = answers["shape"], answers["download"] == "http"
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
    return ([] if is_filled else download.get(shape, [])) + rest.get(shape, [])


def extras(answers: Mapping[str, str]) -> str:
    """Those of the runtime that the project needs, as a requirement has them."""
    needed = ["http"] * (answers["download"] == "http") + ["sql"] * (answers["scheduler"] == "kubernetes")
    return f"[{','.join(needed)}]" if needed else ""


def toml(text: str) -> str:
    """`text` as a string of TOML; `tojson` would write surrogates, which TOML does not know."""
    return json.dumps(text, ensure_ascii=False)


def template_directory(_: str) -> str:
    """Where this template is: a hook runs from a copy elsewhere, and a replay remembers where it was."""
    return str(Path(__file__).resolve().parent)


@pass_context
def template_source(context: Context, answers: Mapping[str, object]) -> str:
    """What cookiecutter (or copier) was given to bake from, such that it can be given it again anywhere."""
    from_copier = context.get("_copier_answers", {}).get("_src_path")
    given = str(answers.get("_template") or from_copier or DEFAULT_TEMPLATE)
    path = _STARTED_IN / given
    return str(path.resolve()) if path.exists() else _without_credentials(given)


def template_repository(_: object) -> str:
    """The git repository that this template came from, as pip takes it behind `git+`; empty if from none."""
    directory = Path(__file__).resolve().parent
    if not (directory / ".git").exists():  # a zip, say
        return ""
    origin = subprocess.run(
        ["git", "-C", directory, "config", "--get", "remote.origin.url"], capture_output=True, text=True
    ).stdout.strip()
    if not origin:
        return directory.as_uri()
    if "://" not in origin:
        path = Path(directory, origin)
        return path.resolve().as_uri() if path.exists() else "ssh://" + origin.replace(":", "/", 1)
    return _without_credentials(origin)


def _without_credentials(url: str) -> str:
    return re.sub(r"^((?:git\+)?https?://)[^/@]*@", r"\1", url)


def schedule(answers: Mapping[str, object]) -> str:
    """Every ten minutes, as cron has it, from a minute that is each collector's own."""
    names = f"{answers['source_provider']}.{answers['source_channel']}.{answers['collector_name']}"
    return f"{zlib.crc32(names.encode()) % 10}-59/10 * * * *"


# Each check returns what is wrong (or nothing), and each mend a value to suggest.


def _check_collector_name(name: str) -> str | None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        return "must be a Python package name: lowercase ASCII letters, digits and _, a letter first"
    if name.endswith("_") or "__" in name:
        return "has an _ too many"
    if len(name) > 30:
        return f"is too long ({len(name)} characters; 30 are allowed)"
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return "is a Python keyword"
    if name in sys.stdlib_module_names:
        return "is the name of a module of Python's standard library"
    if name in TAKEN_NAMES:
        return "is a name that the project needs for something else"
    if command_name(name) == "n6collector_":
        return "leaves nothing to name the command after"
    return None


def _mend_collector_name(name: str) -> str:
    mended = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]+", "_", name.lower())).strip("_")[:25].strip("_")
    if not mended or not mended[0].isalpha():
        mended = f"feed_{mended}".strip("_")
    return mended if _check_collector_name(mended) is None else f"{mended}_feed"


def _check_source_part(part: str) -> str | None:
    if not re.fullmatch(r"[a-z0-9-]+", part):
        return "must be lowercase ASCII letters, digits and hyphens (n6's rule)"
    return None


def _mend_source_part(part: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") or "example"


def _check_url(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        return f"is not a URL ({exc})"
    if parts.scheme not in ("http", "https", "ftp", "ftps", "sftp", "file") or not (
        parts.netloc or parts.path
    ):
        return "has to begin with https:// (or http, ftp, ftps, sftp, file)"
    if parts.scheme != "file" and not parts.hostname:
        return "names no host"
    if not _URL_CHARACTERS.fullmatch(url):
        return (
            "holds characters that a URL must write as %XX (spaces, quotes, < >, { }, non-ASCII letters...)"
        )
    if _mask_url(url) != url:
        return (
            "seems to hold a key or a password, and would be written into files that are shared: leave it "
            "out, and put it where the project's README.md says"
        )
    return None


def _mask_url(url: str, mask: str = "***") -> str:
    """The URL with `mask` for what seems to be a secret in it; with `mask=""` without those parts."""
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


def _mend_url(url: str) -> str:
    """The same URL, encoded and without its secrets, if that makes it a good one."""
    mended = quote(_mask_url(url, ""), safe=_URL_PUNCTUATION, errors="replace")
    return mended if _check_url(mended) is None else "https://feed.example/new.csv"


def _check_raw_type(name: str) -> str | None:
    if name and name not in ("stream", "file", "blacklist"):
        return "must be 'stream', 'file' or 'blacklist'"
    return None


def _check_content_type(content_type: str) -> str | None:
    if content_type and not re.fullmatch(
        r"[A-Za-z0-9][A-Za-z0-9.+-]*/[A-Za-z0-9][A-Za-z0-9.+-]*", content_type
    ):
        return "must be a MIME type like text/csv"
    return None


def _check_author(author: str) -> str | None:
    if not author.isprintable() or len(author) > 200:
        return "must be one printable line of at most 200 characters"
    return None


_CHECKS: dict[str, tuple[Callable[[str], str | None], Callable[[str], str]]] = {
    "collector_name": (_check_collector_name, _mend_collector_name),
    "source_provider": (_check_source_part, _mend_source_part),
    "source_channel": (_check_source_part, _mend_source_part),
    "url": (_check_url, _mend_url),
    "_raw_type": (_check_raw_type, lambda value: ""),
    "_content_type": (_check_content_type, lambda value: ""),
    "_author": (_check_author, lambda value: ""),
}


def check_answers(answers: Mapping[str, str]) -> str:
    """Raise with everything that is wrong, and the corrected command; else return an empty string.

    Raises:
        FailedHookException: cookiecutter prints its text and ends, before anything is written.
    """
    from cookiecutter.exceptions import FailedHookException

    if "collector_name" not in answers:  # a replay: only the questions that it does not answer are here
        return ""
    problems, mended = find_problems(answers)
    problems += _misspelt(answers, mended)
    if problems:
        listing = "\n".join(f"  - {problem}" for problem in problems)
        raise FailedHookException(
            f"{len(problems)} answer{'s' if len(problems) > 1 else ''} cannot be used; nothing was written:\n"
            f"{listing}\n\nThe corrected command:\n\n  {_command(mended)}\n"
        )
    return ""


def find_problems(answers: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Everything that is wrong with the answers, and answers that could stand in their place."""
    problems = []
    mended = {name: str(value) for name, value in answers.items() if not name.startswith("__")}
    for name, (check, mend) in _CHECKS.items():
        problem = check(mended[name])
        if problem:
            shown = _mask_url(mended[name]) if name == "url" else mended[name]
            problems.append(f"{name} = {shown!r} {problem}")
            mended[name] = mend(mended[name])
    for name, problem, instead in list(_without_use(mended)):
        problems.append(f"{name} = {mended[name]} {problem}")
        mended[name] = instead
    if mended["runtime_source"] == "git" and not template_repository(answers):
        problems.append("runtime_source = git needs a template from git; this one is a copy without .git")
        mended["runtime_source"] = "vendored"
    source = f"{mended['source_provider']}.{mended['source_channel']}"
    if len(source) > SOURCE_MAX_LENGTH:
        problems.append(
            f"source_provider and source_channel make {source!r}: {len(source)} characters, "
            f"n6 allows {SOURCE_MAX_LENGTH}"
        )
        mended["source_provider"] = mended["source_provider"][:15].strip("-") or "example"
        mended["source_channel"] = mended["source_channel"][:16].strip("-") or "example"
    return problems, mended


def _without_use(answers: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Answers that the others leave no use for: name, what is wrong, what to answer instead."""
    scheme = urlsplit(answers["url"]).scheme
    if answers["_content_type"] and raw_type(answers) == "stream":
        yield "_content_type", "goes with _raw_type = file or blacklist", ""
    if answers["download"] == "http" and answers["shape"] == "email":
        yield "download", "has nothing to get: with shape = email, a mail is all there is", "fill in"
    elif answers["download"] == "http" and scheme not in ("http", "https"):
        yield "download", f"gets http:// and https:// only, and the URL begins with {scheme}:", "fill in"
    if answers["shape"] == "email" and answers["scheduler"] in ("systemd", "kubernetes"):
        yield "scheduler", "has nothing to start: with shape = email, each mail starts the collector", "none"


def list_problems(answers: Mapping[str, str]) -> str:
    """What is wrong, for copier; it takes an empty string for right."""
    return "; ".join(find_problems(answers)[0])


def _command(answers: Mapping[str, str]) -> str:
    """The command line that was given, with these answers in place of its own."""
    words = [
        f"{name}={value}"
        for name, value in answers.items()
        if isinstance(value, str) and (not name.startswith("_") or (name in _NOT_ASKED and value))
    ]
    return shlex.join(["cookiecutter", *_template_and_options(), "--no-input", *words])


def _is_command_line() -> bool:
    return Path(sys.argv[0]).stem == "cookiecutter" or "cookiecutter" in Path(sys.argv[0]).parts


def _template_and_options() -> list[str]:
    if not _is_command_line():
        return [DEFAULT_TEMPLATE]
    return [word for word in sys.argv[1:] if not _ANSWER.fullmatch(word) and word not in _INSTEAD]


def _misspelt(answers: Mapping[str, str], mended: dict[str, str]) -> list[str]:
    """cookiecutter ignores a `key=value` whose key it does not know; here it is told, and its value goes to
    the question that was meant."""
    if not _is_command_line():
        return []
    problems = []
    known = [name for name in answers if not name.startswith("__")]
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        if _ANSWER.fullmatch(word) and name not in known:
            meant = next(iter(difflib.get_close_matches(name, known, 1)), "")
            problems.append(f"{name}= is no question here" + (f"; did you mean {meant}=?" if meant else ""))
            if meant and (meant not in _CHECKS or not _CHECKS[meant][0](value)):
                mended[meant] = value
    return problems


class AnswersExtension(Extension):
    """Adds the filters of this module to cookiecutter's environment."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters.update(
            check_answers=check_answers,
            class_name=class_name,
            command_name=command_name,
            content_type=content_type,
            extras=extras,
            holes=holes,
            list_problems=list_problems,
            raw_type=raw_type,
            schedule=schedule,
            shell_quote=shlex.quote,
            template_directory=template_directory,
            template_repository=template_repository,
            template_source=template_source,
            toml=toml,
        )
