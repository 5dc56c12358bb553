"""Workbenches without a page around them, and what their controls send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.sampling.registry import Registry
from tests.ui.fakes import in_blocks
from ui.page.layout import first_defaults
from ui.page.viewer import Viewer
from ui.page.workbench import Workbench
from ui.service.styles import Styles

ANN = "ann-has-a-token-of-her-own"
PROMPT = "a red circle on a blue background"
SMALL: dict[str, Any] = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 3}


def built(jobs: Any, registry: Registry, folder: Path) -> Workbench:
    styles = Styles(folder / "styles.json")

    def build() -> Workbench:
        viewer = Viewer(jobs.engine, jobs.runs, jobs)
        return Workbench(jobs, registry, viewer, first_defaults(registry), lambda owner: styles)

    return in_blocks(build)


def values(bench: Workbench, **changed: Any) -> list[Any]:
    """What the controls send as they are first shown, with some of them changed."""
    shown = {name: getattr(control, "value", None) for name, control in bench.asking.fields.items()}
    assert set(changed) <= set(shown)
    return list((shown | changed).values())
