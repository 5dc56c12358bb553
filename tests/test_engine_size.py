"""The engine stays readable in an evening: the lines of code that make an image from a prompt."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

from tests.test_layout import CHECKOUT, graph, sources

PAGE = CHECKOUT / "docs/how-a-picture-is-made.md"
# Files that the tour does not name and that run for every image too. What is split out of a file of the tour
# is added here.
ALSO = (
    *("core/models/config.py", "core/models/layers.py", "core/models/attention.py"),
    *("core/plugins/hookspecs.py", "samplers/schedules/__init__.py", "samplers/schedules/step_count.py"),
)
# What the engine imports from these packages, so that moving code to another file saves nothing.
MOST, MOST_REACHED = 3050, 4260
PACKAGES = ("core.sampling.", "core.prompts.", "core.request.", "core.models.", "core.inference.")
NOT_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}


def lines_of_code(path: Path) -> int:
    """Lines without blank ones, comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            found.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(found)


def tour() -> set[str]:
    return set(re.findall(r"`((?:core|samplers)/[a-z_/]+\.py)`", PAGE.read_text(encoding="utf-8")))


def test_the_page_says_how_long_the_engine_is() -> None:
    count = sum(lines_of_code(CHECKOUT / name) for name in tour() | set(ALSO))
    said = re.search(r"about ([\d,]+) lines", PAGE.read_text(encoding="utf-8"))
    assert said is not None
    assert abs(int(said[1].replace(",", "")) - count) <= 50, count
    assert count <= MOST, count


def test_no_line_leaves_the_engine_by_moving() -> None:
    edges, files = graph(), sources()
    reached, waiting = set[str](), {"core.inference.pipeline", "core.inference.run"}
    while waiting:
        reached |= waiting
        found = {other for name in waiting for other in edges[name]}
        waiting = {name for name in found if name.startswith(PACKAGES)} - reached
    count = sum(lines_of_code(files[name]) for name in reached)
    assert count <= MOST_REACHED, count


def test_lines_of_code(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        '"""Module."""\n\n# why\ndef f():\n    """Doc\n    string."""\n    x = """a\n    b"""\n    return x\n'
    )
    assert lines_of_code(path) == 4
