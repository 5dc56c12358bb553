"""Every public function over tensors or arrays says their shapes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
TENSOR = re.compile(r"\b(Tensor|NDArray)\b")
NAMED = re.compile(
    r"(dict|Mapping|Callable)\[.*\]"
)  # tensors by name, and functions: their makers say the shapes
SHAPE = re.compile(
    r"\(([A-Z0-9][\w+*/ ]*|count|size|h)(, [^()]+)*,?\)|\bscalar|any shape|same shape|shape that"
)
ELSEWHERE = re.compile(r"As `\w+\.\w+`\.")


def functions(tree: ast.AST, owner: str = "") -> Iterator[tuple[ast.FunctionDef, str]]:
    """Public functions and methods, with the docstring of their class."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node, ast.get_docstring(node) or " ")
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__call__"):
            yield node, owner


def over_tensors(function: ast.FunctionDef) -> bool:
    args = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    hints = [arg.annotation for arg in args] + [function.returns]
    return any(TENSOR.search(NAMED.sub("", ast.unparse(hint))) for hint in hints if hint is not None)


def test_shapes_are_said() -> None:
    """A network's `forward` and what is called may say them in the class, a sampler in its contract."""
    silent = []
    for path in (*ROOT.glob("core/**/*.py"), *ROOT.glob("samplers/*.py")):
        for function, owner in functions(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.get_docstring(function) or ""
            said = SHAPE.search(text) or ELSEWHERE.fullmatch(text)
            in_class = function.name in ("forward", "__call__") and SHAPE.search(owner)
            sampler = function.returns is not None and ast.unparse(function.returns) == "Iterator[Step]"
            if over_tensors(function) and not (said or in_class or sampler):
                silent.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name}")
    assert silent == []
