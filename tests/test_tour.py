"""The documents name what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [path.relative_to(ROOT) for path in sorted(ROOT.glob("docs/**/*.md"))]
FILE = r"`([a-z_/]+\.(?:py|toml|md))`"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_files_are_there(document: Path) -> None:
    for name in re.findall(FILE, (ROOT / document).read_text(encoding="utf-8")):
        assert "/" not in name or (ROOT / name).is_file(), name


def test_the_tour_names_what_is_in_the_files() -> None:
    """`core/x.py` followed by a name: that name is defined in that file."""
    text = (ROOT / "docs/how-a-picture-is-made.md").read_text(encoding="utf-8")
    places = re.findall(FILE + r"\s`([A-Za-z_.]+)`", text)
    assert len(places) > 15
    for path, name in places:
        assert name in definitions(ROOT / path), f"{name} in {path}"


def definitions(path: Path) -> set[str]:
    """Functions and classes of a module, and "Class.method"."""
    names = set[str]()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return names
