"""Rules of the house that no tool checks: who may import whom, and what may stand in a file."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from glob import glob
from importlib import import_module
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import tomli

import latentcanvas
from core.plugins.discovery import load_plugins
from ui import cli

CHECKOUT = Path(__file__).resolve().parents[1]
CODE = ("core", "samplers", "ui")
# Who may import whom, apart from themselves; ui may not import the samplers, which come through entry points.
MAY_IMPORT = {
    "core": set[str](),
    "latentcanvas": {"core"},
    "samplers": {"latentcanvas"},
    "ui": {"core"},
    "launcher": {"ui"},
}
HOUSE = set(MAY_IMPORT)


@cache
def tracked() -> tuple[Path, ...]:
    """The files of the project, without what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    return tuple(path for name in listed.split("\0") if name and (path := CHECKOUT / name).is_file())


@cache
def pyproject() -> dict[str, Any]:
    return tomli.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))


def sources(part: str) -> list[Path]:
    single = CHECKOUT / f"{part}.py"
    return [single] if single.exists() else sorted((CHECKOUT / part).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a file has one name: import it by that"
            yield node.lineno, node.module or ""


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_arrows_run_one_way(part: str) -> None:
    forbidden = HOUSE - MAY_IMPORT[part] - {part}
    wrong = [
        f"{path.relative_to(CHECKOUT)}:{line} imports {module}"
        for path in sources(part)
        for line, module in imports(path)
        if module.partition(".")[0] in forbidden
    ]
    assert sources(part)
    assert wrong == []


def test_a_rule_that_is_broken_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("import core.x\ndef f():\n    from samplers.ddim import ddim\n")
    assert list(imports(path)) == [(1, "core.x"), (3, "samplers.ddim")]


def test_the_public_face_is_what_it_says() -> None:
    named = latentcanvas.__all__
    assert sorted(set(named)) == list(named)
    for name in named:
        assert getattr(latentcanvas, name) is not None
    with pytest.raises(AttributeError):
        latentcanvas.__getattr__("no_such_name")


def test_every_all_is_honest() -> None:
    for part in CODE:
        for path in sources(part):
            if "__all__" in path.read_text(encoding="utf-8"):
                name = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")
                module = import_module(name)
                assert [n for n in module.__all__ if not hasattr(module, n)] == [], name


def test_no_file_names_a_machine_or_a_registry() -> None:
    # In pieces, so that this file does not hold them.
    hints = "|".join(
        ["/(?:wo" + "rk|ro" + "ot|ho" + "me)/", "/tmp/[a-z]", r"\bpypi\.o" + "rg", "python" + "hosted"]
    )
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8").splitlines(), 1):
            if re.search(hints, line):
                found.append(f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_every_package_is_in_the_distribution() -> None:
    setuptools = pyproject()["tool"]["setuptools"]
    there = {
        ".".join(path.parent.relative_to(CHECKOUT).parts)
        for part in CODE
        for path in sources(part)
        if path.name == "__init__.py"
    }
    assert there == {name for name in setuptools["packages"] if name != "data"}
    folders = {".".join(path.parent.relative_to(CHECKOUT).parts) for part in CODE for path in sources(part)}
    assert folders == there


def test_every_file_that_the_code_reads_is_in_the_distribution() -> None:
    patterns = pyproject()["tool"]["setuptools"]["package-data"]
    shipped = {
        CHECKOUT / package.replace(".", "/") / name
        for package, names in patterns.items()
        for pattern in names
        for name in glob(pattern, root_dir=CHECKOUT / package.replace(".", "/"), recursive=True)
    }
    inside = [path for path in tracked() if path.relative_to(CHECKOUT).parts[0] in (*CODE, "data")]
    assert [path for path in inside if path.suffix != ".py" and path not in shipped] == []


def test_every_requirement_is_pinned() -> None:
    project = pyproject()["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[^\w.-]", requirement)[0] for requirement in wanted}
    lines = (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    assert names - pinned == set()


def test_entry_points_lead_to_modules() -> None:
    for module in pyproject()["project"]["entry-points"]["latentcanvas"].values():
        import_module(module)


def test_one_version() -> None:
    stated = pyproject()["project"]["version"]
    assert version("latentcanvas") == stated == latentcanvas.__version__
    assert f"## [{stated}]" in (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_sampler_in_the_readme_works(tmp_path: Path) -> None:
    """On a Gaussian, whose probability-flow ODE is solved exactly: x grows as sqrt(std^2 + sigma^2)."""
    import torch

    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    [plugin] = [
        code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "register_samplers" in code
    ]
    (tmp_path / "latentcanvas_heun.py").write_text(plugin, encoding="utf-8")
    registry = load_plugins(directory=tmp_path)
    assert registry.failed == []

    sigmas = [10 * (1 - i / 200) ** 7 for i in range(201)]
    x = torch.full((1, 4, 2, 2), 100**0.5)
    denoise = latentcanvas.testing.gaussian(std=0.5)
    *_, last = registry.sampler("my_heun").function(
        denoise, x, sigmas, lambda sigma, target: torch.zeros_like(x)
    )
    assert last.sigma == 0
    exact = x * 0.5 / (0.5**2 + 10**2) ** 0.5
    torch.testing.assert_close(last.x, exact, rtol=1e-2, atol=0)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_command_in_the_texts_exists(name: str) -> None:
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    commands = set(cli.COMMANDS)
    mentioned = set(re.findall(r"launcher\.py (?:--plugins-dir \S+ )?([a-z]+)\b", text))
    assert mentioned & commands
    assert mentioned - commands == set()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_between_files_lead_somewhere(name: str) -> None:
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    assert [target for target in targets if not (CHECKOUT / target).exists()] == []


# Of other libraries, which have no public way.
FOREIGN_PRIVATE = {"_cdata", "_exit", "_getframe", "_step_index"}


def private_names(path: Path) -> Iterator[tuple[int, str]]:
    """(line, name) of each private name that a file reads of something else, or replaces in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in HOUSE:
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            found = [node.attr]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("getattr", "setattr")):
            texts = (part.value for part in node.args[:2] if isinstance(part, ast.Constant))
            found = [text.rpartition(".")[2] for text in texts if isinstance(text, str)]
        for name in found:
            if name.startswith("_") and not name.startswith("__") and name not in FOREIGN_PRIVATE:
                yield getattr(node, "lineno", 0), name


def test_no_test_reads_what_is_private() -> None:
    broken = [f"{path.name}:{line} {name}" for path in sources("tests") for line, name in private_names(path)]
    assert broken == []
