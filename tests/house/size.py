"""The amount of code to read: code lines, without blank lines, comments and docstrings.

    python tests/house/size.py

prints them by module, and the sums that tests/house/test_house.py limits and README.md quotes.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.house.imports import modules

# The core never imports these at module level.
OPTIONAL = ("bases", "command", "databases", "health", "testing")
JOURNAL = ["broker", "databases", "delivery", "journal", "message", "pickles", "publishing", "sqlite"]
JOURNAL += ["state", "state_file"]

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
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _code(source: str) -> set[int]:
    """The numbers of the lines that hold code."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _Documented) and ast.get_docstring(node, clean=False) is not None:
            documented.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - documented


def code_lines(source: str) -> int:
    """How many lines of `source` hold code."""
    return len(_code(source))


def function_sizes(source: str) -> dict[str, int]:
    """The code lines of each function, decorators included, by its name and line."""
    code = _code(source)
    sizes = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            lines = code.intersection(range(first, (node.end_lineno or first) + 1))
            sizes[f"{node.name}:{node.lineno}"] = len(lines)
    return sizes


def part_of(module: str) -> str:
    """The first name below the package: the core's modules, or a folder like `bases`."""
    return module.partition(".")[2].partition(".")[0]


def is_core(module: str) -> bool:
    """Whether every collector needs it."""
    return part_of(module) not in OPTIONAL


def sums() -> dict[str, int]:
    """The code lines of the journal and what goes with it, of the core, and of everything."""
    sizes = {module: code_lines(path.read_text()) for module, path in modules().items()}
    return {
        "journal": sum(count for module, count in sizes.items() if part_of(module) in JOURNAL),
        "core": sum(count for module, count in sizes.items() if is_core(module)),
        "everything": sum(sizes.values()),
    }


if __name__ == "__main__":
    for module, path in modules().items():
        print(f"{code_lines(path.read_text()):5,}  {module}")
    for name, lines in sums().items():
        print(f"{lines:5,}  {name}")
    print(f"{len(modules()):5,}  modules")
