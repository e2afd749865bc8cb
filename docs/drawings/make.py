"""The drawings of the documentation, as SVG files that need no network.

    python docs/drawings/make.py            writes run.svg, journal.svg and modules.svg beside this script
    python docs/drawings/make.py --check    only compares; the exit code is 1 if one of them is out of date

The drawing of the modules is made from the imports in the code; the other two are drawn by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.house.imports import imports, modules  # noqa: E402

LINE_HEIGHT = 19
# A page may be dark where the reader's system is light, so a drawing has a background of its own.
STYLE = """
  svg { --paper: #fbfbfd; --box: #eef2f8; --line: #5b6b82; --ink: #1d2733; --faint: #566173;
        --strong: #0a4bd1; --outbox: #fff1d6; --state: #e2f3e4 }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #161b22; --box: #232c38; --line: #8796ad; --ink: #e6ebf2; --faint: #a5b1c2;
          --strong: #7fb0ff; --outbox: #43361c; --state: #1f3b26 }
  }
  text { font: 14px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: var(--ink) }
  .title { font-weight: 600 }
  .head { font-weight: 700; font-size: 15px; fill: var(--strong) }
  .faint { fill: var(--faint); font-size: 13px }
  .code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 12.5px }
  .paper { fill: var(--paper) }
  .box { fill: var(--box); stroke: var(--line) }
  .outbox { fill: var(--outbox); stroke: var(--line) }
  .state { fill: var(--state); stroke: var(--line) }
  .frame { fill: none; stroke: var(--line); stroke-dasharray: 5 4 }
  .arrow { fill: none; stroke: var(--line); stroke-width: 1.6; marker-end: url(#head) }
  .dotted { stroke-dasharray: 2 4 }
  #head path { fill: var(--line) }
"""
HEAD = (
    '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z"/></marker></defs>'
)

Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle with a title and some lines."""

    x: float
    y: float
    width: float
    height: float
    title: str = ""
    lines: Sequence[str] = ()
    kind: str = "box"
    font: str = "faint"

    @property
    def top(self) -> Point:
        """The middle of the upper edge."""
        return self.x + self.width / 2, self.y

    @property
    def bottom(self) -> Point:
        """The middle of the lower edge."""
        return self.x + self.width / 2, self.y + self.height

    @property
    def left(self) -> Point:
        """The middle of the left edge."""
        return self.x, self.y + self.height / 2

    @property
    def right(self) -> Point:
        """The middle of the right edge."""
        return self.x + self.width, self.y + self.height / 2

    def draw(self) -> Iterator[str]:
        """The rectangle and its texts."""
        yield (
            f'<rect class="{self.kind}" x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" '
            f'height="{self.height:g}" rx="7"/>'
        )
        if self.title:
            yield text(self.x + 14, self.y + 24, self.title, "title")
        for number, line in enumerate(self.lines, start=1 if self.title else 0):
            yield text(self.x + 14, self.y + 25 + number * LINE_HEIGHT, line, self.font)


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text whose beginning (or `anchor`) is at that point."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


def arrow(*points: Point, kind: str = "") -> str:
    """An arrow along these points."""
    path = "L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path class="{" ".join(filter(None, ("arrow", kind)))}" d="M{path}"/>'


def picture(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """The whole file."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n{HEAD}\n"
        f'<rect class="paper" width="{width}" height="{height}" rx="10"/>\n{body}\n</svg>\n'
    )


def run() -> str:
    """What happens to the data in a run."""
    source = Box(24, 94, 108, 76, "source", ("asked for", "what is new"))
    buffer = Box(186, 94, 148, 76, "buffer", ("in memory,", "not yet durable"))
    outbox = Box(420, 78, 170, 70, "outbox", ("messages that wait",), "outbox")
    state = Box(420, 170, 170, 70, "state", ("what was collected",), "state")
    broker = Box(740, 78, 196, 70, "RabbitMQ", ("n6's exchange raw",))
    file = Box(740, 170, 196, 70, "state file", ("a plain pickle, for n6",), "state")
    journal = Box(402, 58, 206, 202, kind="frame")
    steps = [
        (24, "1  collect", ("publish_output()",), ("nothing has happened;", "the next run collects again")),
        (402, "2  commit", ("save_state()",), ("all of it or nothing", "is in the journal")),
        (
            660,
            "3  deliver",
            ("and first in every run",),
            ("the next run sends the rest, with the", "same message ids, and writes the file"),
        ),
    ]
    parts = [part for box in (journal, source, buffer, outbox, state, broker, file) for part in box.draw()]
    parts += [
        arrow(source.right, buffer.left),
        arrow((334, 122), (419, 113)),
        arrow((334, 140), (419, 200)),
        text(505, 279, "the journal: one transaction", "faint", "middle"),
        arrow((590, 104), (739, 104)),
        arrow((740, 126), (591, 126)),
        text(674, 97, "send", "faint", "middle"),
        text(674, 144, "confirmed: delete", "faint", "middle"),
        arrow(state.right, file.left),
        text(674, 226, "once confirmed", "faint", "middle"),
    ]
    for x, title, calls, ends in steps:
        parts += [text(x, 34, title, "head"), text(x + 92, 34, calls[0], "code faint")]
        parts += [text(x, 318, "if the run dies here", "title")]
        parts += [text(x, 318 + LINE_HEIGHT * n, line, "faint") for n, line in enumerate(ends, 1)]
    return picture(960, 374, "A run: collect, commit, deliver", parts)


def journal() -> str:
    """The tables, who writes them and who reads them."""
    head = Box(
        270, 92, 330, 84, "n6_collector: one row", ("id, newest, filed, url", "newest counts the commits")
    )
    state = Box(
        270,
        192,
        330,
        84,
        "n6_state: the last ten",
        ("number, run, saved, sha256, pickle", "one for each run that published"),
        "state",
    )
    outbox = Box(
        270,
        292,
        330,
        103,
        "n6_outbox: what waits",
        (
            "id, message_id, exchange, routing_key,",
            "properties, queued, refused, size, body",
            "deleted once confirmed",
        ),
        "outbox",
    )
    runs = Box(270, 425, 330, 65, "n6_run: a record of each run", ("started, record (JSON)",))
    commit = Box(256, 78, 358, 331, kind="frame")
    parts = [part for box in (commit, head, state, outbox, runs) for part in box.draw()]
    save = Box(24, 192, 168, 84, "a commit", ("save_state() or", "flush_output()"))
    command = Box(24, 425, 168, 65, "the command", ("of each run",))
    file = Box(
        690, 192, 246, 84, "state file", ("<source>.<ClassName>.pickle", "never ahead of the broker"), "state"
    )
    broker = Box(690, 301.5, 246, 84, "RabbitMQ", ("oldest first;", "refused messages last"))
    health = Box(690, 425, 246, 65, "runs, status, metrics", ("and python -m n6_stateful.health",))
    parts += [part for box in (save, command, file, broker, health) for part in box.draw()]
    parts += [
        text(24, 36, "<source>.<ClassName>.sqlite", "head"),
        text(300, 36, "or the same tables in PostgreSQL or MariaDB", "faint"),
        text(
            24,
            522,
            "Beside the file: .lock, for one run at a time; -journal, while a commit is in progress.",
            "faint",
        ),
        text(435, 68, "changed together, in one transaction", "faint", "middle"),
        text(24, 306, "Its first statement fails if", "faint"),
        text(24, 306 + LINE_HEIGHT, "another run has committed", "faint"),
        text(24, 306 + 2 * LINE_HEIGHT, "in the meantime.", "faint"),
        arrow(save.right, (255, 234)),
        arrow(command.right, runs.left),
        arrow(state.right, file.left),
        arrow(outbox.right, broker.left),
        arrow(runs.right, health.left),
    ]
    return picture(960, 540, "The journal: its four tables, who writes and who reads them", parts)


class Group(NamedTuple):
    """Modules that belong together, and where their box is."""

    title: str
    modules: str
    x: float
    y: float
    width: float
    height: float = 66


GROUPS = {
    "testing": Group("the pytest plugin", "testing", 24, 24, 912, 58),
    "command": Group("the console command", "command", 24, 116, 420, 104),
    "bases": Group("shapes", "bases", 516, 116, 420, 104),
    "health": Group("records, status, metrics", "health", 24, 270, 420),
    "collector": Group("the classes of n6's guide", "collector state publishing pickles", 516, 270, 420),
    "delivery": Group("the outbox to RabbitMQ, through pika", "delivery broker", 516, 376, 420),
    "journal": Group("the journal: all SQL", "journal sqlite databases", 24, 482, 912),
    "basics": Group(
        "configuration, errors, and what else everybody needs",
        "config masking errors message download settings progress interruption",
        24,
        586,
        912,
    ),
}
CORE = ("collector", "delivery", "journal", "basics")
PACKAGE = "n6_stateful"


def group_of(module: str) -> str:
    """The name of a module's group; empty for the package itself."""
    name = module.removeprefix(PACKAGE).strip(".").partition(".")[0]
    if not name:
        return ""
    for key, group in GROUPS.items():
        if {name, name.partition("_")[0]} & set(group.modules.split()):
            return key
    raise SystemExit(f"docs/drawings/make.py: put the module {module} into one of GROUPS")


def uses() -> tuple[dict[str, set[str]], set[tuple[str, str]]]:
    """Which groups further down a group uses, and the pairs of groups where that goes the other way."""
    down: dict[str, set[str]] = {key: set() for key in GROUPS}
    other_way = set()
    for item in imports():
        user, used = group_of(item.importer), group_of(item.imported)
        if not user or not used or user == used:
            continue
        if GROUPS[user].y < GROUPS[used].y:
            down[user].add(used)
        elif item.lazy:
            other_way.add((user, used))
        else:
            raise SystemExit(
                f"docs/drawings/make.py: {item.importer} imports {item.imported}, which is above it"
            )
    return down, other_way


def needed(down: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The pairs without those that follow from others."""

    def reachable(key: str) -> set[str]:
        return down[key] | {further for used in down[key] for further in reachable(used)}

    return [
        (user, used)
        for user in GROUPS
        for used in GROUPS
        if used in down[user] and not any(used in reachable(other) for other in down[user] - {used})
    ]


def between(user: Box, used: Box, kind: str = "", shift: float = 0) -> str:
    """An arrow from one box to another, straight down or up where one lies across the other; `shift` moves a
    slanted one to the side."""
    if user.y == used.y:
        return arrow(user.left, used.right, kind=kind)
    start, end = (user.bottom, used.top) if user.y < used.y else (user.top, used.bottom)
    if used.width > user.width:
        end = start[0], end[1]
    elif user.width > used.width:
        start = end[0], start[1]
    elif start[0] != end[0]:
        inwards = 100 if start[0] < end[0] else -100
        start, end = (start[0] + inwards + shift, start[1]), (end[0] - inwards + shift, end[1])
    return arrow(start, end, kind=kind)


def wrapped(names: Sequence[str], width: float) -> list[str]:
    """The names as lines that fit."""
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) > (width - 28) / 7.8:
            lines.append("")
        lines[-1] += name + "  "
    return lines


def module_map() -> str:
    """The modules in groups, and which group uses which."""
    boxes = {}
    for key, group in GROUPS.items():
        names = [name.removeprefix(PACKAGE + ".") for name in modules() if group_of(name) == key]
        names = [name.partition(".")[2] or name for name in names if name not in ("command", "bases")]
        place = (group.x, group.y, group.width, group.height)
        kind = "state" if key in CORE else "box"
        boxes[key] = Box(*place, group.title, wrapped(names, group.width), kind, "code")
    down, other_way = uses()
    parts = [part for box in boxes.values() for part in box.draw()]
    parts += [between(boxes[user], boxes[used]) for user, used in needed(down)]
    parts += [between(boxes[user], boxes[used], "dotted", -60) for user, used in sorted(other_way)]
    about = "An arrow points to what is used; those that follow from others are left out. Green: the core."
    parts.append(text(24, 680, about, "faint"))
    parts.append(
        text(24, 700, "Dotted: only when it is called, since n6 has run_script on the class.", "faint")
    )
    return picture(960, 718, "The modules of the runtime, and which uses which", parts)


def main(argv: Sequence[str]) -> int:
    """Write the drawings, or compare them; 1 if one of them is out of date."""
    drawings = {"run.svg": run(), "journal.svg": journal(), "modules.svg": module_map()}
    stale = [name for name, drawing in drawings.items() if not _is(HERE / name, drawing)]
    if "--check" in argv:
        for name in stale:
            print(f"docs/drawings/{name} is out of date: python docs/drawings/make.py")
        return 1 if stale else 0
    for name in stale:
        (HERE / name).write_text(drawings[name])
    return 0


def _is(path: Path, contents: str) -> bool:
    return path.exists() and path.read_text() == contents


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
