"""The main job, from `cookiecutter` to a collector that publishes each record once.

    python examples/demo.py [--keep DIRECTORY]

Generates a collector from the template next to this file, fills in its `_download` from examples/urlhaus,
installs it in a fresh virtual environment, and runs it three times against a feed that grows meanwhile.
Every claim that it prints is checked; it ends with exit code 1 if one is not so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
sys.path.insert(0, str(EXAMPLES.parent))

from examples.feed_server import serving  # noqa: E402
from examples.urlhaus.make_feed import feed  # noqa: E402

ANSWERS = {
    "collector_name": "my_urlhaus",
    "source_provider": "abuse-ch",
    "source_channel": "urlhaus",
    "raw_type": "file",
    "content_type": "text/csv",
}
MARK = "    # The user's part"


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description="The main job, from cookiecutter to published records.")
    parser.add_argument("--keep", metavar="DIRECTORY", type=Path, help="do it there, and leave it there")
    keep = parser.parse_args().keep
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="n6-stateful-demo-") as directory:
            demo(Path(directory))
        print("\nThe folder of this demo is gone again; --keep DIRECTORY keeps one to look around in.")
    else:
        keep.mkdir(parents=True)
        demo(keep.resolve())


def demo(directory: Path) -> None:
    """Do the main job in `directory`, and tell of it."""
    file = directory / "feed.csv"
    file.write_bytes(feed(0, 1200))
    with serving(file) as server:
        words = " ".join(f"{name}={value}" for name, value in ANSWERS.items())
        say("1. Generate a collector", f"$ cookiecutter n6-stateful --no-input {words}")
        project = generate(directory, server.url)
        point_at(project, directory)
        print(
            f"   {sum(path.is_file() for path in project.rglob('*'))} files, tests and deployment included."
        )

        say(
            "2. Fill in _download",
            "the one method that the template leaves to you; here from examples/urlhaus",
        )
        fill_in(project)

        say("3. Install it in a fresh virtual environment", "$ pip install ./vendor/n6-stateful-runtime -e .")
        command = install(project)

        say("4. Run it three times, while the feed grows", f"$ {command.name} --config etc")
        published = [run(command, project, "the feed has 1,200 records")]
        published.append(run(command, project, "the feed is the same"))
        file.write_bytes(feed(0, 1260))
        published.append(run(command, project, "the feed has 60 records more"))

    say("5. What it remembers now", f"$ {command.name} --config etc state show")
    state = call(command, project, "state", "show")
    print(indented(state))

    say("6. Where the messages lie", f"$ {command.name} --config etc spool list")
    print(indented(call(command, project, "spool", "list")))

    check(
        "the three runs published 1,200, 0 and 60 records", [len(each) for each in published] == [1200, 0, 60]
    )
    every = [record for records in published for record in records]
    check("no record came twice", len(every) == len(set(every)))
    check("no record is missing", set(every) == set(records_of(feed(0, 1260))))
    check("it remembers the newest record, number 3401259", "'last_utc': 3401259" in state)
    print(
        "\nAll of that was checked. The messages wait in the spool, one SQLite file; with RabbitMQ in the "
        f"configuration\nthey go there instead, and `{command.name} spool forward` sends on what is spooled."
    )


def generate(directory: Path, url: str) -> Path:
    """Bake the project, as a user would."""
    words = [f"{name}={value}" for name, value in {**ANSWERS, "url": url}.items()]
    do(sys.executable, "-m", "cookiecutter", EXAMPLES.parent, "--no-input", *words, cwd=directory)
    return directory / ANSWERS["collector_name"]


def point_at(project: Path, directory: Path) -> None:
    """Keep state and spool in the demo's folder, where the development configuration says ~/.n6cache."""
    config = project / f"etc/60_{ANSWERS['collector_name']}.conf"
    config.write_text(config.read_text().replace("~/.n6cache", str(directory / "n6cache")))


def fill_in(project: Path) -> None:
    """Put the finished `_download` of examples/urlhaus in the place of the generated one."""
    finished = (EXAMPLES / "urlhaus/collector.py").read_text()
    begin = finished.index("    def _download", finished.index(MARK))
    method = finished[begin : finished.index("\n\nif __name__")]
    path = project / f"src/{ANSWERS['collector_name']}/collector.py"
    text = path.read_text()
    text = text[: text.index("    def _download")] + method
    imports = "import logging\nfrom typing import Any\n\nimport requests\n"
    text = text.replace("from typing import Any\n", imports, 1).replace("    NotFilledInError,\n", "")
    text = text.replace("    BaseCollector,\n", "    BaseCollector,\n    CollectorError,\n")
    more = (
        "from requests.adapters import HTTPAdapter\nfrom urllib3.util import Retry\n\n"
        "LOGGER = logging.getLogger(__name__)\n"
    )
    path.write_text(text.replace("    NothingNew,\n)\n", "    NothingNew,\n)\n" + more))
    pyproject = project / "pyproject.toml"
    added = re.sub(r"(dependencies = \[\n)", r'\1    "requests >=2.32,<3",\n', pyproject.read_text())
    pyproject.write_text(added)


def install(project: Path) -> Path:
    """A virtual environment with the collector in it; its console command."""
    venv = project / ".venv"
    what = ["./vendor/n6-stateful-runtime", "-e", "."]
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv:
        do(uv, "venv", "-q", "--python", sys.executable, venv, cwd=project)
        do(uv, "pip", "install", "-q", "--python", venv / "bin/python", *what, cwd=project)
    else:
        do(sys.executable, "-m", "venv", venv, cwd=project)
        do(venv / "bin/python", "-m", "pip", "install", "-q", *what, cwd=project)
    return venv / "bin/n6collector_myurlhaus"


def run(command: Path, project: Path, circumstances: str) -> list[bytes]:
    """Run the collector, and find out what it has put into the spool; the records of those messages."""
    before = set(message_ids(command, project))
    said = call(command, project)
    new = [each for each in message_ids(command, project) if each not in before]
    records = [
        record
        for each in new
        for record in records_of(call(command, project, "spool", "show", each).encode())
    ]
    shown = re.sub(r"/\S+/", ".../", said.strip())
    print(f"   {circumstances + ':':31} {len(records):5,} records published   ({shown})")
    return records


def message_ids(command: Path, project: Path) -> list[str]:
    """The ids of the messages in the spool."""
    lines = call(command, project, "spool", "list", "--json").splitlines()
    return [json.loads(line)["properties"]["message_id"] for line in lines]


def records_of(body: bytes) -> list[bytes]:
    """The records in a body, without its `#` lines."""
    return [line for line in body.splitlines() if line and not line.startswith(b"#")]


def call(command: Path, project: Path, *argv: str) -> str:
    """What the collector's command prints."""
    return do(command, "--config", "etc", "--log-level", "warning", *argv, cwd=project)


def do(*argv: str | Path, cwd: Path) -> str:
    """Run a command; end the demo if it fails."""
    env = {name: value for name, value in os.environ.items() if name != "N6_CONFIG"}
    done = subprocess.run(list(map(str, argv)), cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(map(str, argv))}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def check(claim: str, holds: bool) -> None:
    """Print the claim; end the demo if it does not hold."""
    if not holds:
        raise SystemExit(f"\nNOT SO: {claim}")
    print(f"   ok: {claim}")


def say(what: str, how: str) -> None:
    """A heading, and how it is done."""
    print(f"\n{what}\n   {how}")


def indented(text: str) -> str:
    """`text`, moved to the right."""
    return "".join(f"   {line}\n" for line in text.rstrip().splitlines()).rstrip()


if __name__ == "__main__":
    main()
