"""A newer template is merged into a project, and every way to bake gives the same."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from tests.template.conftest import (
    REPOSITORY,
    ROOT,
    Bake,
    Done,
    Project,
    blocks_in,
    call_cookiecutter,
    commit_all,
    do,
    files_in,
    git,
    make_venv,
    replace,
    run,
    words,
)

QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text())
COPIER = yaml.safe_load((ROOT / "copier.yml").read_text())
EXTENSIONS = "copier-template-extensions"
TEMPLATE = "<<cookiecutter.collector_name>>"
ANSWERS = {"shape": "items", "download": "http", "scheduler": "systemd", "license": "MIT"}
WHO = {f"GIT_{who}_NAME": "n6" for who in ("AUTHOR", "COMMITTER")}
WHO |= {f"GIT_{who}_EMAIL": "n6@example.org" for who in ("AUTHOR", "COMMITTER")}


def succeeded(done: Done) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def template(repository: Path, tmp_path: Path) -> Path:
    """A clone of the template, which stands for `gh:org/n6-stateful` in `env`."""
    git(tmp_path, "clone", "-q", repository, tmp_path / "github/n6-stateful")
    return tmp_path / "github/n6-stateful"


@pytest.fixture
def env(template: Path) -> dict[str, str]:
    env = WHO | {"GIT_CONFIG_COUNT": "2"}
    for number, url in enumerate((f"{REPOSITORY}.git", REPOSITORY)):
        env |= {
            f"GIT_CONFIG_KEY_{number}": f"url.file://{template}.insteadOf",
            f"GIT_CONFIG_VALUE_{number}": url,
        }
    return env


def make_newer(template: Path) -> None:
    """Change what a release changes: a line, a file more, a file fewer, the runtime."""
    replace(template / f"{TEMPLATE}/tox.ini", ("the collector's tests", "the collector's own tests"))
    init = template / "runtime/src/n6_stateful/__init__.py"
    replace(init, ('__version__ = "0.1.0"', '__version__ = "0.1.1"'))
    (template / "runtime/src/n6_stateful/extra.py").write_text('"""New in 0.1.1."""\n')
    (template / f"{TEMPLATE}/SECURITY.md").write_text("Write to <<cookiecutter._author>>.\n")
    (template / f"{TEMPLATE}/.pre-commit-config.yaml").unlink()
    commit_all(template, "0.1.1")
    git(template, "tag", "v0.1.1")


def edit(project: Project) -> None:
    """Do to a project what its owner does."""
    commit_all(project.path, "As it was generated")
    project.fill_in()
    tox = project.path / "tox.ini"
    tox.write_text(tox.read_text() + "\n[testenv:mine]\ncommands = python -V\n")
    replace(project.path / "README.md", ("# my_feed\n", "# my_feed, the best feed\n"))
    commit_all(project.path, "Fill in obtain_items")


def assert_merged(project: Project) -> None:
    """Both the template's and the owner's changes are there, and the project is green."""
    assert git(project.path, "diff", "--name-only", "--diff-filter=U") == ""
    assert "the collector's own tests" in project.read("tox.ini")
    assert "[testenv:mine]" in project.read("tox.ini")
    assert "raise NotFilledInError" not in project.collector.read_text()
    assert project.read("README.md").startswith("# my_feed, the best feed\n")
    assert (project.path / "SECURITY.md").exists()
    assert not (project.path / ".pre-commit-config.yaml").exists()
    project.tox()
    for name in ("tests", "types"):  # also in an environment that has the older runtime
        do(project.path / f".tox/{name}/bin/python", "-c", "import n6_stateful.extra", cwd=project.path)


def test_questions() -> None:
    """copier asks the questions of cookiecutter, and one version is named everywhere."""
    asked = {
        name: value for name, value in COPIER.items() if name[0] != "_" and value.get("when") is not False
    }
    assert list(asked) == [name for name in QUESTIONS if name[0] != "_"]
    for name, question in asked.items():
        prompt, default = QUESTIONS["__prompts__"][name], QUESTIONS[name]
        assert question["help"] == (prompt["__prompt__"] if isinstance(prompt, dict) else prompt)
        assert question.get("choices", [default]) == (default if isinstance(default, list) else [default])
        assert question["default"] == (default[0] if isinstance(default, list) else default)
    version = QUESTIONS["_version"]
    assert f'__version__ = "{version}"' in (ROOT / "runtime/src/n6_stateful/__init__.py").read_text()
    assert f'_version="{version}"' in COPIER["cookiecutter"]["default"]


@pytest.mark.sweep
class TestCookiecutter:
    """The recipe at the end of the README."""

    @pytest.fixture(params=["==2.6.0", ">=2.7"])
    def tools(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        """The Python of an environment with that cookiecutter."""
        return make_venv(tmp_path / "tools", f"cookiecutter{request.param}")

    @pytest.fixture
    def project(self, env: dict[str, str], tmp_path: Path) -> Project:
        """A project of the older release, under git, edited."""
        options = ["--no-input", "--checkout", "v0.1.0", "_author=CSIRT", "shape=items"]
        succeeded(call_cookiecutter(tmp_path, *options, template="gh:org/n6-stateful", env=env))
        edit(project := Project(tmp_path / "my_feed"))
        return project

    def follow_recipe(self, project: Project, env: dict[str, str], tools: Path) -> None:
        *_, recipe = blocks_in(project.read("README.md"))
        home = {"HOME": str(project.path.parent), "PATH": f"{tools.parent}:/usr/local/bin:/usr/bin:/bin"}
        succeeded(run("bash", "-euc", recipe, cwd=project.path, env=env | home))

    def test_newer_template(self, project: Project, template: Path, env: dict[str, str], tools: Path) -> None:
        """It merges a newer template into an edited project."""
        project.tox("-e", "tests,types")
        make_newer(template)
        self.follow_recipe(project, env, tools)
        assert_merged(project)
        assert project.read("SECURITY.md") == "Write to CSIRT.\n"

    def test_another_answer(self, project: Project, env: dict[str, str], tools: Path) -> None:
        """Another answer is merged in the same way."""
        replace(project.path / ".cookiecutter.json", ('"scheduler": "cron"', '"scheduler": "systemd"'))
        commit_all(project.path, "systemd from now on")
        self.follow_recipe(project, env, tools)
        assert (project.path / "deploy/systemd/n6-my_feed.timer").exists()
        assert not (project.path / "deploy/cron").exists()

    def test_replay(self, project: Project, template: Path, tmp_path: Path) -> None:
        """A question that is new in the template is asked, and answers changed in the file are checked."""
        (template / "cookiecutter.json").write_text(json.dumps(QUESTIONS | {"contact": "soc@example.org"}))
        (template / TEMPLATE / "SECURITY.md").write_text("Write to <<cookiecutter.contact>>.\n")
        options = ("--replay-file", project.path / ".cookiecutter.json", "-o", "new")
        succeeded(call_cookiecutter(tmp_path, *options, template=template, input="csirt@example.org\n"))
        assert (tmp_path / "new/my_feed/SECURITY.md").read_text() == "Write to csirt@example.org.\n"
        replace(
            project.path / ".cookiecutter.json", ('"my_feed"', '"class"'), ('"my-provider"', '"No Provider"')
        )
        done = call_cookiecutter(tmp_path, *options)
        assert done.returncode == 1
        assert "2 answers cannot be used" in done.stdout + done.stderr
        assert not (tmp_path / "new/class").exists()


@pytest.fixture(scope="session")
def copier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, in an environment of its own."""
    venv = tmp_path_factory.mktemp("copier") / "venv"
    return make_venv(venv, "copier>=9.4,<10", f"{EXTENSIONS}>=0.3,<1").with_name("copier")


@pytest.mark.sweep
class TestCopier:
    """`copier copy` and `copier update`."""

    @pytest.mark.parametrize(
        "answers", [ANSWERS, {"shape": "email"}, {"shape": "feed", "runtime_source": "git"}]
    )
    def test_same(self, answers: dict[str, str], copier: Path, repository: Path, tmp_path: Path) -> None:
        """It bakes what cookiecutter bakes; only the recipe differs."""
        template = f"git+file://{repository}"
        succeeded(call_cookiecutter(tmp_path, "--no-input", *words(answers), template=template))
        given = [word for answer in words(answers) for word in ("-d", answer)]
        do(copier, "copy", "--trust", "--defaults", *given, template, "other", cwd=tmp_path)
        ours, theirs = tmp_path / "my_feed", tmp_path / "other"
        assert files_in(theirs) == files_in(ours) | {".copier-answers.yml"}
        for name in files_in(ours) - {"README.md"}:
            assert (theirs / name).read_bytes() == (ours / name).read_bytes(), name
        until = "## Updating to a newer template"
        texts = [(path / "README.md").read_text().partition(until) for path in (ours, theirs)]
        assert texts[0][0] == texts[1][0]
        assert "cookiecutter" not in texts[1][2]

    def test_update(self, copier: Path, template: Path, tmp_path: Path) -> None:
        """It updates an edited project."""
        project = Project(tmp_path / "my_feed")
        argv = ("copy", "--trust", "--defaults", "-d", "shape=items", f"git+file://{template}", project.path)
        do(copier, *argv, cwd=tmp_path)
        edit(project)
        make_newer(template)
        *_, recipe = blocks_in(project.read("README.md"))
        assert recipe == f"uvx --with {EXTENSIONS} copier update --trust\n"
        do(copier, "update", "--trust", "--defaults", cwd=project.path, env=WHO)
        assert "_commit: v0.1.1" in project.read(".copier-answers.yml")
        assert_merged(project)


def contents(project: Path) -> dict[str, str]:
    """Every file of a project, without the place where it was baked from."""
    source = named_source(project)
    texts = {name: (project / name).read_text() for name in files_in(project)}
    return {
        name: text.replace(shlex.quote(source), "...").replace(source, "...") for name, text in texts.items()
    }


def named_source(project: Path) -> str:
    """Where a project says that it was baked from; its README says the same."""
    source = str(json.loads((project / ".cookiecutter.json").read_text())["template"])
    assert f"\ncookiecutter {shlex.quote(source)} --replay-file" in (project / "README.md").read_text()
    return source


@pytest.mark.sweep
class TestWays:
    """Where the template is."""

    @pytest.mark.parametrize("way", ["relative path", "zip", "git tag", "gh:", "autocrlf"])
    def test_same(
        self, way: str, repository: Path, published: dict[str, str], baked: Bake, tmp_path: Path
    ) -> None:
        """Every way to name the template bakes the same; line ends are LF, whatever git is set to."""
        options = ["--no-input", *words(ANSWERS)]
        template = named = "gh:org/n6-stateful"
        if way == "zip":
            template = named = str(tmp_path / "n6-stateful-0.1.0.zip")
            git(repository, "archive", "--prefix=n6-stateful-0.1.0/", "-o", template, "v0.1.0")
        elif way == "git tag":
            template = named = f"file://{repository}"
            options += ["--checkout", "v0.1.0"]
        elif way != "gh:":
            template, named = "some where/n6-stateful", str(tmp_path / "some where/n6-stateful")
            config = ("-c", "core.autocrlf=true") if way == "autocrlf" else ()
            git(tmp_path, *config, "clone", "-q", repository, named)
        succeeded(call_cookiecutter(tmp_path, *options, template=template, env=published))
        project = tmp_path / "my_feed"
        assert named_source(project) == named
        assert contents(project) == contents(baked(**ANSWERS).path)
        assert [name for name in files_in(project) if b"\r\n" in (project / name).read_bytes()] == []

    @pytest.mark.parametrize(
        ("origin", "declared"),
        [
            ("https://me:hidden@git.example/n6.git", "git+https://git.example/n6.git@v0.1.0"),
            ("git@git.example:org/n6.git", "git+ssh://git@git.example/org/n6.git@v0.1.0"),
            ("", "git+file://{template}@v0.1.0"),
        ],
        ids=["https", "ssh", "none"],
    )
    def test_runtime(self, origin: str, declared: str, template: Path, tmp_path: Path) -> None:
        """With runtime_source = git, pip gets the runtime from where the template came from."""
        git(template, "remote", *(("set-url", "origin", origin) if origin else ("remove", "origin")))
        succeeded(call_cookiecutter(tmp_path, "--no-input", "runtime_source=git", template=template))
        text = "".join(path.read_text() for path in (tmp_path / "my_feed").rglob("*") if path.is_file())
        assert f'"n6-stateful-runtime @ {declared.format(template=template)}#' in text
        assert "hidden" not in text
        shutil.rmtree(template / ".git")
        done = call_cookiecutter(tmp_path, "--no-input", "-f", "runtime_source=git", template=template)
        assert "runtime_source = git needs a template from git" in done.stdout + done.stderr
