"""Which module of the runtime imports which: read from the source, nothing is run."""

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
    paths = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        paths[".".join((PACKAGE, *parts)).removesuffix(".__init__")] = path
    return paths


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
