"""Takes away what the answers do not call for, copies the runtime in, and tells the next steps."""

import json
import shutil
from pathlib import Path

COLLECTOR_NAME = json.loads(r"""
<<cookiecutter.collector_name|tojson>>
""")
COMMAND = json.loads(r"""
<<cookiecutter.collector_name|command_name|tojson>>
""")
DOWNLOAD = json.loads(r"""
<<cookiecutter.download|tojson>>
""")
SCHEDULER = json.loads(r"""
<<cookiecutter.scheduler|tojson>>
""")
RUNTIME_SOURCE = json.loads(r"""
<<cookiecutter.runtime_source|tojson>>
""")
LICENSE = json.loads(r"""
<<cookiecutter.license|tojson>>
""")
TEMPLATE_DIRECTORY = json.loads(r"""
<<""|template_directory|tojson>>
""")

VENDORED = Path("vendor/n6-stateful-runtime")


def prune() -> None:
    """Keep only the chosen scheduler's files, the chosen license, the tests of what is there."""
    Path(".copier-answers.yml").unlink()  # copier's own, which does without this hook
    for directory in Path("deploy").iterdir():
        if directory.is_dir() and directory.name != SCHEDULER:
            shutil.rmtree(directory)
    if LICENSE == "none":
        Path("LICENSE").unlink()
    if DOWNLOAD != "http":
        Path("tests/test_download.py").unlink()


def vendor_runtime() -> None:
    """Copy the runtime's source, and nothing that was built from it."""
    runtime = Path(TEMPLATE_DIRECTORY, "runtime")
    shutil.rmtree(VENDORED, ignore_errors=True)  # an update may have fewer files
    VENDORED.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(runtime / name, VENDORED / name)
    shutil.copytree(
        runtime / "src", VENDORED / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )


def next_steps() -> str:
    """What to type now."""
    steps = [f"cd {COLLECTOR_NAME}", "tox"]
    if DOWNLOAD == "fill in":
        steps.append(f"# now fill in _download() in src/{COLLECTOR_NAME}/collector.py, and run tox again")
    install = "./vendor/n6-stateful-runtime -e ." if RUNTIME_SOURCE == "vendored" else "-e ."
    steps += [
        f"python3 -m venv venv && venv/bin/pip install {install}",
        f"venv/bin/{COMMAND} --config etc --dry-run",
        f"venv/bin/{COMMAND} --config etc",
        f"venv/bin/{COMMAND} --config etc state show",
    ]
    return "\n".join(f"  {step}" for step in steps)


prune()
if RUNTIME_SOURCE == "vendored":
    vendor_runtime()
print(f"\n{COLLECTOR_NAME} is ready. Next (its README.md tells more):\n\n{next_steps()}\n")
