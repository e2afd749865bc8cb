"""The main job, from `cookiecutter` to a collector that publishes each record once.

    python examples/demo.py [DIRECTORY] [--remove]

Generates a collector from the template next to this folder, fills in its methods from examples/urlhaus,
installs it in a fresh virtual environment, and runs it three times against a feed that grows meanwhile.
Checks every claim that it prints, and ends with exit code 1 at the first that is wrong.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

EXAMPLES = Path(__file__).resolve().parent
sys.path.insert(0, str(EXAMPLES.parent))

from examples.feed_server import FeedServer, serving  # noqa: E402
from examples.urlhaus.make_feed import feed  # noqa: E402

ANSWERS = {
    "collector_name": "my_urlhaus",
    "source_provider": "abuse-ch",
    "source_channel": "urlhaus",
    "shape": "rows",
    "download": "http",
}
FUTURE = "from __future__ import annotations\n"
HOLES = "    def pick_raw_row_time"


class Run(NamedTuple):
    """What one run of the collector did.

    Attributes:
        message_ids: those of the messages that it published.
        records: the ids of the records in them.
        state: what it remembers after it, as JSON.
    """

    message_ids: list[str]
    records: list[str]
    state: str


class Collector(NamedTuple):
    """The installed collector: its console command, and the project in which it is run."""

    command: Path
    project: Path

    def call(self, *argv: str) -> str:
        """What the command prints, given `argv`."""
        return do([self.command, "--config", "etc", "--log-level", "warning", *argv], self.project)

    def messages(self) -> dict[str, str]:
        """The messages in the outbox: their numbers there, by their message ids."""
        waiting = map(json.loads, self.call("outbox", "list", "--json").splitlines())
        return {message["message_id"]: str(message["id"]) for message in waiting}

    def run(self) -> Run:
        """Run it, and read what it has put into the outbox."""
        before = self.messages()
        self.call()
        new = {name: number for name, number in self.messages().items() if name not in before}
        bodies = [self.call("outbox", "show", number) for number in new.values()]
        records = [record for body in bodies for record in fields_of(body, 0)]
        return Run(list(new), records, json.dumps(json.loads(self.call("state", "show", "--json"))["state"]))


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description="The main job, from cookiecutter to published records.")
    parser.add_argument("directory", nargs="?", type=Path, help="do it there (default: a new directory)")
    parser.add_argument("--remove", action="store_true", help="leave nothing behind")
    args = parser.parse_args()
    if args.directory and args.directory.exists():
        parser.error(f"{args.directory} exists; name a new directory")
    if args.directory:
        args.directory.mkdir(parents=True)
    directory = (args.directory or Path(tempfile.mkdtemp(prefix="n6-stateful-demo-"))).resolve()
    try:
        collector = demo(directory)
    finally:
        if args.remove:
            shutil.rmtree(directory)
    if args.remove:
        print("\nEverything is removed again.")
        return
    print(
        f"\nIt is all still there. Look around:\n"
        f"   cd {collector.project}\n"
        f"   {collector.command.relative_to(collector.project)} --config etc state show\n"
        f"   {collector.command.relative_to(collector.project)} --config etc outbox list\n"
        "(The feed is gone: a run now ends with one clear error, and exit code 66.)"
    )


def demo(directory: Path) -> Collector:
    """Do the main job in `directory`, and print each step."""
    file = directory / "feed.csv"
    file.write_bytes(feed(0, 1200))
    with serving(file) as server:
        print(
            "A collector fetches what is new at a source, publishes it, and remembers how far it got. Here\n"
            "is one from its first line to its third run. The source is a server on this machine, with a\n"
            f"feed like that of abuse.ch URLhaus and invented records: {server.url}"
        )
        answers = " \\\n       ".join(f"{name}={value}" for name, value in ANSWERS.items())
        say("1. Generate it from the template", f"cookiecutter n6-stateful --no-input {answers}")
        project = generate(directory, server.url)
        count = sum(path.is_file() for path in project.rglob("*"))
        print(f"   {count} files: a package, its tests, its configuration, its deployment, and the runtime")

        say("2. Write what a row's time is, and what identifies a row")
        fill_in(project)
        print(
            "   src/my_urlhaus/collector.py now has the three methods of examples/urlhaus/collector.py,\n"
            "   and tests/test_collector.py has real rows"
        )

        say("3. Install it in a virtual environment", "pip install ./vendor/n6-stateful-runtime -e .")
        collector = install(project)
        print(f"   this installs the command {collector.command.name}")

        say("4. Run it, as cron would, three times", f"{collector.command.name} --config etc")
        runs = [
            show_run("The feed has 1,200 records", collector, server),
            show_run("The feed is the same", collector, server),
        ]
        file.write_bytes(feed(0, 1260))
        runs.append(show_run("The feed has grown by 60", collector, server))

    say("5. What it remembers for the next run", f"{collector.command.name} --config etc state show")
    state, _, _ = collector.call("state", "show").partition("'window_rows'")
    print(
        indented(state),
        "   ... and the digests of a day's rows, among which late ones are looked up",
        sep="\n",
    )

    say("6. The messages", f"{collector.command.name} --config etc outbox list")
    print(indented(collector.call("outbox", "list")))
    print(
        "   They wait in the outbox, a part of the collector's journal, since no broker is configured.\n"
        f"   `{collector.command.name} outbox deliver --to amqp://...` sends them to RabbitMQ."
    )

    say("7. Is all of this true?")
    check_all(runs, file.read_text())
    check("the outbox has what was published, and nothing else", len(collector.messages()) == 2)
    return collector


def show_run(what: str, collector: Collector, server: FeedServer) -> Run:
    """Run the collector, and print what it did."""
    answered = len(server.answers)
    done = collector.run()
    answers = ", ".join(map(str, server.answers[answered:]))
    print(
        f"   {what} (the source answered {answers}): {len(done.records):,} records published,\n"
        f"      in {len(done.message_ids)} message{'' if len(done.message_ids) == 1 else 's'}; "
        f"it remembers everything up to {remembered(done)}"
    )
    return done


def remembered(done: Run) -> str:
    """The newest time in the state after a run."""
    newest = (json.loads(done.state) or {}).get("newest_row_time")
    if newest is None:
        raise SystemExit(f"\nWRONG: the state has the newest time: {done.state}")
    return str(newest)


def check_all(runs: Sequence[Run], in_feed: str) -> None:
    """End the demo if the runs did not do what it claims."""
    published = [record for run in runs for record in run.records]
    message_ids = [name for run in runs for name in run.message_ids]
    check("the first run published all 1,200 records", len(runs[0].records) == 1200)
    check("the second run published none", runs[1].records == runs[1].message_ids == [])
    check("and left the state unchanged", runs[1].state == runs[0].state)
    check("the third run published the 60 new ones", len(runs[2].records) == 60)
    check("no record was published twice, and no message id", all(map(are_unique, (published, message_ids))))
    check("each record of the feed was published", set(published) == set(fields_of(in_feed, 0)))
    check("it remembers the newest time", remembered(runs[2]) == max(fields_of(in_feed, 1)))


def are_unique(names: Sequence[str]) -> bool:
    """Whether no name occurs twice."""
    return len(names) == len(set(names))


def generate(directory: Path, url: str) -> Path:
    """Bake the project, as a user would, but without the user's own defaults or files."""
    config = directory / "cookiecutter.yaml"
    temporary = directory / "tmp"  # where cookiecutter leaves its copies of the hooks
    temporary.mkdir()
    config.write_text(f"cookiecutters_dir: {directory}/cookiecutters\nreplay_dir: {directory}/replay\n")
    answers = [f"{name}={value}" for name, value in {**ANSWERS, "url": url}.items()]
    argv = [sys.executable, "-m", "cookiecutter", "--config-file", str(config), "--no-input"]
    do([*argv, EXAMPLES.parent, *answers], directory, TMPDIR=str(temporary))
    project = directory / ANSWERS["collector_name"]
    # The journal stays in the demo's directory; the generated configuration has the user's home.
    for settings in (project / "etc").glob("*.conf"):
        settings.write_text(settings.read_text().replace("~/.n6cache", f"{directory}/n6cache"))
    return project


def fill_in(project: Path) -> None:
    """Do with examples/urlhaus what examples/README.md says."""
    example = (EXAMPLES / "urlhaus/collector.py").read_text()
    path = project / f"src/{ANSWERS['collector_name']}/collector.py"
    generated = path.read_text()
    path.write_text(
        generated[: generated.index(FUTURE)]
        + example[example.index(FUTURE) : example.index("\n\nclass ")]
        + generated[generated.index("\n\nclass ") : generated.index(HOLES)]
        + example[example.index(HOLES) : example.index("\n\nif __name__")]
    )
    tests = project / "tests/test_collector.py"
    tests.write_text(
        re.sub(r'b"(\S+ \S+),([a-z ]+)(\\n)?"', r"""b'"\2","\1","http://192.0.2.1/"\3'""", tests.read_text())
    )


def install(project: Path) -> Collector:
    """Install the project in a fresh virtual environment, by uv where there is one."""
    venv = project / "venv"
    what = ["./vendor/n6-stateful-runtime", "-e", "."]
    uv = shutil.which("uv") or shutil.which("uv", path=Path(sys.executable).parent)
    if uv:
        do([uv, "venv", "-q", "--python", sys.executable, venv], project)
        do([uv, "pip", "install", "-q", "--python", venv / "bin/python", *what], project)
    else:
        do([sys.executable, "-m", "venv", venv], project)
        do([venv / "bin/python", "-m", "pip", "install", "-q", *what], project)
    return Collector(venv / "bin/n6collector_myurlhaus", project)


def fields_of(text: str, column: int) -> list[str]:
    """A field of each record in `text`, CSV with `#` lines: 0 is the id, 1 the time."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [fields[column] for fields in csv.reader(lines)]


def do(argv: Sequence[str | Path], directory: Path, **environment: str) -> str:
    """The output of a command, run in `directory`; end the demo if it fails."""
    env = {name: value for name, value in os.environ.items() if name != "N6_CONFIG"} | environment
    for name in ("no_proxy", "NO_PROXY"):  # a proxy cannot reach this machine's own server
        env[name] = ",".join(filter(None, ["127.0.0.1", env.get(name)]))
    done = subprocess.run(argv, cwd=directory, env=env, capture_output=True, text=True)
    if done.returncode:
        command = " ".join(map(str, argv))
        raise SystemExit(f"\n{command}\nended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def check(claim: str, holds: bool) -> None:
    """Print the claim; end the demo if it does not hold."""
    if not holds:
        raise SystemExit(f"\nWRONG: {claim}")
    print(f"   yes: {claim}")


def say(what: str, command: str = "") -> None:
    """Print a heading, and the command that does it."""
    print(f"\n{what}" + (f"\n   $ {command}" if command else ""))


def indented(text: str) -> str:
    """`text`, moved to the right."""
    return "\n".join(f"   {line}" for line in text.rstrip().splitlines())


if __name__ == "__main__":
    main()
