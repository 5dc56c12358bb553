"""The layout that every file keeps to: layers without circles, one name for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
# From the lowest to the highest: a module imports from its own layer and from those before it.
LAYERS = (
    *("errors", "files", "cache_folder", "device", "memory", "checks", "lru", "toml_records"),
    *("sampling", "prompts", "figures", "scenes", "plugins", "request", "models", "weights", "recipes"),
    *("images", "conformance", "inference", "history", "compare", "training", "bench", "learn"),
    *("ui.web", "ui.service", "ui.api", "ui.page", "ui.commands", "ui.app", "ui.cli"),
)
LEAVES = LAYERS.index("toml_records")  # one layer: these may import each other
# One meaning each, though a file or class elsewhere is called the same. A lesson has the name of its subject.
SAME_STEM = {"ddpm", "guidance"}
SAME_CLASS = {"Attention", "MidBlock", "_Reader"}
# A command, a tab or a widget may have its package's name.
MAY_SHARE_A_STEM = ("ui/commands", "ui/page/tabs", "ui/page/widgets")


def sources() -> dict[str, Path]:
    paths = [path for part in ("core", "ui", "samplers") for path in sorted((CHECKOUT / part).rglob("*.py"))]
    return {
        ".".join(p.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__"): p for p in paths
    }


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that a file imports, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name for name in names if name in known)


def graph() -> dict[str, set[str]]:
    known = sources()
    return {name: set(imports(path, known)) - {name} for name, path in known.items()}


def layer(module: str) -> int | None:
    """Where a module is in LAYERS; None for the samplers and the packages at the top."""
    name = module.removeprefix("core.")
    found = [i for i, prefix in enumerate(LAYERS) if f"{name}.".startswith(f"{prefix}.")]
    return max(found[0], LEAVES) if found else None


def test_no_imports_run_in_a_circle() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(error.args[1])) from None


def test_no_module_imports_from_a_higher_layer() -> None:
    assert {
        name for name in sources() if layer(name) is None and name.count(".") and "samplers" not in name
    } == set()
    wrong = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if (here := layer(name)) is not None and (there := layer(other)) is not None and there > here
    ]
    assert wrong == []


def test_no_two_files_have_one_name() -> None:
    found = defaultdict(list)
    for path in sources().values():
        where = path.relative_to(CHECKOUT)
        if path.stem != "__init__" and not where.as_posix().startswith(MAY_SHARE_A_STEM):
            found[path.stem].append(where.as_posix())
    assert {stem for stem, places in found.items() if len(places) > 1} == SAME_STEM, found


def test_no_two_classes_have_one_name() -> None:
    found = defaultdict(list)
    for module, path in sources().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(module)
    repeated = {name: modules for name, modules in found.items() if len(modules) > 1}
    assert set(repeated) == SAME_CLASS, repeated


def test_few_files_lie_loose() -> None:
    for part, most in (("core", 9), ("ui", 3)):
        loose = [path.name for path in (CHECKOUT / part).glob("*.py") if path.name != "__init__.py"]
        assert len(loose) <= most, loose


def inner_imports(path: Path) -> set[int]:
    """The lines of a file with an import inside a function."""
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {
        node.lineno
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }


def test_imports_stand_at_the_top() -> None:
    """All but those that keep torch, gradio or matplotlib out of a start or a help text."""
    paths = [*sources().values(), CHECKOUT / "latentcanvas.py", CHECKOUT / "launcher.py"]
    assert sum(len(inner_imports(path)) for path in paths) <= 165
