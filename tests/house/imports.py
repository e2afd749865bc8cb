"""Which room of the runtime imports which: read from the source, nothing is run.

    python tests/house/imports.py

prints the drawing that stands in docs/architecture.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "n6_stateful"
SOURCE = Path(__file__).resolve().parents[2] / "runtime/src" / PACKAGE


class Import(NamedTuple):
    """One module importing another; `lazy` inside a function, so only when that is called."""

    importer: str
    imported: str
    lazy: bool


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join((PACKAGE, *parts)).removesuffix(".__init__")] = path
    return found


def imports() -> set[Import]:
    """Every import of one module of the package by another that happens when the program runs."""
    known = modules()
    return {
        Import(name, imported, lazy)
        for name, path in known.items()
        for imported, lazy in _imports(ast.parse(path.read_text()), known)
        if imported != name
    }


def _imports(tree: ast.AST, known: dict[str, Path], lazy: bool = False) -> Iterator[tuple[str, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue  # for the type checker only
        if isinstance(node, ast.Import):
            yield from ((alias.name, lazy) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            assert node.module is not None
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                yield (member if member in known else node.module), lazy
        else:
            inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(node, known, inside)


def room(module: str) -> str:
    """The folder of a module, or its own name where it lies in none."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def drawing() -> str:
    """The rooms and their arrows, as mermaid: solid for imports at module level, dotted for lazy ones."""
    eager = {(room(each.importer), room(each.imported)) for each in imports() if not each.lazy}
    lazy = {(room(each.importer), room(each.imported)) for each in imports() if each.lazy} - eager
    lines = [f"    {a} --> {b}" for a, b in sorted(eager) if a != b]
    lines += [f"    {a} -.-> {b}" for a, b in sorted(lazy) if a != b]
    return "\n".join(["graph TD", *lines])


if __name__ == "__main__":
    print(drawing())
