"""How much there is to read: code lines, without blank lines, comments and docstrings.

    python tests/house/size.py

prints them by file, and the sums that README.md tells and tests/house/test_house.py bounds.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.house.imports import modules, room

# What not every collector needs: the core never imports it at module level.
OPTIONAL = ("bases", "command", "record", "testing")
OPTIONAL_MODULES = ("n6_stateful.extras", "n6_stateful.state.database", "n6_stateful.typed_json")
NEW_ROOMS = ("bases", "record")
NEW_MODULES = (
    "n6_stateful.command.json_log",
    "n6_stateful.command.runs",
    "n6_stateful.command.status",
    "n6_stateful.duration",
    "n6_stateful.state.database",
)
# Of the room `output` the core needs no more than these; the others are one output each.
OUTPUTS_THAT_ALL_NEED = ("n6_stateful.output", "n6_stateful.output.base", "n6_stateful.output.choice")

_NO_CODE = frozenset(
    (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
)


def code_lines(source: str) -> int:
    """The lines of `source` that hold code."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                documented.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - documented)


def is_new(module: str) -> bool:
    """Whether it belongs to what was built around the first collectors: shapes, records, a database."""
    return room(module) in NEW_ROOMS or module in NEW_MODULES


def is_core(module: str) -> bool:
    """Whether every collector needs it."""
    is_an_output = room(module) == "output" and module not in OUTPUTS_THAT_ALL_NEED
    return room(module) not in OPTIONAL and module not in OPTIONAL_MODULES and not is_an_output


def sizes() -> dict[str, int]:
    """The code lines of each module."""
    return {module: code_lines(path.read_text()) for module, path in modules().items()}


def sums() -> dict[str, int]:
    """The code lines of the core, of the core and everything around it, and of the new rooms."""
    every = sizes()
    return {
        "core": sum(count for module, count in every.items() if is_core(module)),
        "all but the new rooms": sum(count for module, count in every.items() if not is_new(module)),
        "new rooms": sum(count for module, count in every.items() if is_new(module)),
        "everything": sum(every.values()),
    }


if __name__ == "__main__":
    for name, lines in {**sizes(), **sums()}.items():
        print(f"{lines:5,}  {name}")
