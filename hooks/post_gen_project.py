"""Copies the runtime in, and prints the next steps.

Nothing is deleted here but empty directories: what the answers do not call for has a file name that renders
to nothing, so it is never written, and a file of the project's owner is never in the way.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path

COLLECTOR_NAME = json.loads(r"""
<<cookiecutter.collector_name|tojson>>
""")
COMMAND = json.loads(r"""
<<cookiecutter.collector_name|command_name|tojson>>
""")
SHAPE = json.loads(r"""
<<cookiecutter.shape|tojson>>
""")
HOLES = json.loads(r"""
<<cookiecutter|holes|tojson>>
""")
RUNTIME_SOURCE = json.loads(r"""
<<cookiecutter.runtime_source|tojson>>
""")
TEMPLATE_DIRECTORY = json.loads(r"""
<<""|template_directory|tojson>>
""")

VENDORED = Path("vendor/n6-stateful-runtime")


def remove_empty_directories() -> None:
    """Those of the schedulers that were not chosen."""
    for scheduler in ("cron", "systemd", "kubernetes"):
        with suppress(OSError):  # the chosen one, or something of the owner's is in it
            Path("deploy", scheduler).rmdir()


def vendor_runtime() -> None:
    """Copy the runtime's source, and nothing that was built from it."""
    runtime = Path(TEMPLATE_DIRECTORY, "runtime")
    VENDORED.mkdir(parents=True, exist_ok=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(runtime / name, VENDORED / name)
    built = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(runtime / "src", VENDORED / "src", ignore=built, dirs_exist_ok=True)


def next_steps() -> str:
    """What to type now."""
    steps = [f"cd {COLLECTOR_NAME}", "tox"]
    if HOLES:
        methods = " and ".join(f"{each}()" for each in HOLES)
        steps.append(f"# now fill in {methods} in src/{COLLECTOR_NAME}/collector.py, and run tox again")
    install = "./vendor/n6-stateful-runtime -e ." if RUNTIME_SOURCE == "vendored" else "-e ."
    command = f"venv/bin/{COMMAND} --config etc"
    mail = " < mail.eml" if SHAPE == "email" else ""
    last = "spool list" if SHAPE == "email" else "state show"
    steps += [
        f"python3 -m venv venv && venv/bin/pip install {install}",
        f"{command} --dry-run{mail}",
        f"{command}{mail}",
        f"{command} {last}",
    ]
    return "\n".join(f"  {step}" for step in steps)


remove_empty_directories()
if RUNTIME_SOURCE == "vendored":
    vendor_runtime()
print(f"\n{COLLECTOR_NAME} is ready. Next (its README.md tells more):\n\n{next_steps()}\n")
