"""What a person does on the page, in a word each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.browser.conftest import Site

Open = Callable[..., Any]
PROMPT = "a large red circle on a blue background"


def generate(page: Any) -> Any:
    return page.locator(".lc-generate:visible")


def ask(page: Any, prompt: str = PROMPT, **numbers: str) -> None:
    """Fill the form and press Generate."""
    page.locator("#prompt textarea").fill(prompt)
    for name, value in numbers.items():
        field = page.locator(f"#{name} input[type=number], #{name} input[type=text]").first
        field.fill(value)
        field.press("Tab")
    page.evaluate("window.shownWhenAsked = document.querySelector('.lc-strip').dataset.run ?? 'none'")
    generate(page).click()


def wait(page: Any, phase: str = "done") -> None:
    """Wait until the player is in this phase, and not with the run that it showed at the last `ask`.

    Runs that were live then it cannot tell apart.
    """
    page.wait_for_function(
        """phase => document.querySelector(".lc-player")?.dataset.phase === phase
          && document.querySelector(".lc-strip").dataset.run !== (window.shownWhenAsked ?? "none")""",
        arg=phase,
    )


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
    on_tab(page, name)


def on_tab(page: Any, name: str) -> None:
    """Wait until the workbench is that of this tab, which is a moment after the tab was chosen."""
    known = name if name in ("txt2img", "img2img", "inpaint") else "none"
    page.locator(f"#workbench[data-tab={known}]").wait_for(state="attached")


def paint_on(page: Any, photo: Path) -> Any:
    """Open a picture in the editor; its canvas, when the picture is there.

    The editor does not say when it is ready, and loses a picture that comes before: so it is given again.
    """
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    for _ in range(6):
        page.wait_for_timeout(2000)
        page.locator("#editor input[type=file]").first.set_input_files(photo)
        page.wait_for_timeout(2000)  # it fits the picture into its frame
        if page.locator("#editor .empty").count() == 0:
            return canvas
    raise AssertionError("the editor does not take a picture")


def shown(page: Any) -> str:
    return str(page.locator(".lc-picture").first.get_attribute("src"))


def newest(site: Site) -> Path:
    return max(site.outputs.glob("*.png"))
