"""Copies the runtime in, and prints the next steps.

It deletes nothing but empty directories. A file that the answers do not need has a name that renders to
nothing, so it is never written; and the owner's own files stay.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path

NAME, COMMAND, SHAPE, HOLES, RUNTIME_SOURCE, TEMPLATE = json.loads(r"""
<<[cookiecutter.collector_name, cookiecutter.collector_name|command_name, cookiecutter.shape,
cookiecutter|holes, cookiecutter.runtime_source, ""|template_directory]|tojson>>
""")
VENDORED = Path("vendor/n6-stateful-runtime")


def remove_empty_directories() -> None:
    """Remove the directories of the schedulers that were not chosen."""
    for scheduler in ("cron", "systemd", "kubernetes"):
        with suppress(OSError):  # the chosen one, or one that has the owner's files
            Path("deploy", scheduler).rmdir()


def vendor_runtime() -> None:
    """Copy the runtime's source, and nothing that was built from it."""
    runtime = Path(TEMPLATE, "runtime")
    VENDORED.mkdir(parents=True, exist_ok=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(runtime / name, VENDORED / name)
    built = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(runtime / "src", VENDORED / "src", ignore=built, dirs_exist_ok=True)


def next_steps() -> str:
    """The commands to type next."""
    samples = "tests/test_download.py" if SHAPE == "download" else "tests/test_collector.py"
    steps = [f"cd {NAME}", "tox"]
    if HOLES:
        steps += [
            f"# write {' and '.join(f'{name}()' for name in HOLES)} in src/{NAME}/collector.py",
            f"# replace the samples at the top of {samples}: until then, tox is red",
            "tox",
        ]
    install = "./vendor/n6-stateful-runtime -e ." if RUNTIME_SOURCE == "vendored" else "-e ."
    command = f"venv/bin/{COMMAND} --config etc"
    mail = " < mail.eml" if SHAPE == "email" else ""
    steps += [
        f"python3 -m venv venv && venv/bin/pip install {install}",
        f"{command} --dry-run{mail}",
        f"{command}{mail}",
        f"{command} outbox list",
    ]
    return "\n".join(f"  {step}" for step in steps)


remove_empty_directories()
if RUNTIME_SOURCE == "vendored":
    vendor_runtime()
print(f"\n{NAME} is ready. Next (more in its README.md):\n\n{next_steps()}\n")
