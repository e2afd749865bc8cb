"""Where a project gets the runtime from, and that it gets it from nowhere else."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.template.conftest import REPOSITORY, ROOT, Bake, do, files_in, uv


@pytest.mark.parametrize(
    ("runtime_source", "declared"),
    [
        ("vendored", "n6-stateful-runtime >=0.1.0,<0.2"),
        ("index", "n6-stateful-runtime >=0.1.0,<0.2"),
        ("git", f"n6-stateful-runtime @ git+{REPOSITORY}@v0.1.0#subdirectory=runtime"),
    ],
)
def test_declared(runtime_source: str, declared: str, bake: Bake, tmp_path: Path) -> None:
    """The runtime is declared and comes from there."""
    project = bake(runtime_source=runtime_source)
    about = tomllib.loads((project.path / "pyproject.toml").read_text())["project"]
    assert about["dependencies"] == [declared]
    command = project.install(tmp_path / "venv")
    record = next((tmp_path / "venv").rglob("n6_stateful_runtime-*/METADATA")).parent / "direct_url.json"
    came_from = record.read_text() if record.exists() else "an index"
    assert {
        "vendored": "vendor/n6-stateful-runtime",
        "index": "an index",
        "git": f'"{REPOSITORY}"',
    }[runtime_source] in came_from
    assert "n6-stateful-runtime 0.1.0" in do(command, "--version", cwd=tmp_path)


def test_vendored(bake: Bake) -> None:
    """The vendored runtime is the template's, with nothing that was built from it."""
    vendored = bake().path / "vendor/n6-stateful-runtime"
    files = files_in(ROOT / "runtime")
    assert files_in(vendored) == {name for name in files if ".egg-info" not in name}
    for name in files_in(vendored):
        assert (vendored / name).read_bytes() == (ROOT / "runtime" / name).read_bytes()


def test_no_network(bake: Bake, tmp_path: Path) -> None:
    """The two commands of its README, the second one where there is no network."""
    project = bake(download="http")
    readme = (project.path / "README.md").read_text()
    (download,) = re.findall(r"`(pip download [^`]+)`", readme)
    (install,) = re.findall(r"`(pip install --no-index [^`]+)`", readme)
    do(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    env = {"PATH": f"{tmp_path}/venv/bin:/usr/bin:/bin"}
    do("bash", "-euc", download, cwd=project.path, env=env)
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "PIP_FIND_LINKS": ""}
    do("bash", "-euc", install, cwd=project.path, env=env | nowhere)
    do(tmp_path / "venv/bin/n6collector_myfeed", "--help", cwd=project.path)


def test_uv_asks_no_index(bake: Bake) -> None:
    """uv asks no index for a vendored runtime."""
    project = bake()
    uv("lock", "-q", cwd=project.path)
    packages = tomllib.loads((project.path / "uv.lock").read_text())["package"]
    (source,) = (each["source"] for each in packages if each["name"] == "n6-stateful-runtime")
    assert source == {"directory": "vendor/n6-stateful-runtime"}
