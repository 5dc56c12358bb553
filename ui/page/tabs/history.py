"""The history tab: search, filter, open, star, export and delete saved runs.

Images are sent to the browser inside messages, only to the run's owner: no output file has a URL that
someone else could request. Only a zip is too large for that; it is written to Gradio's cache, under a name
that cannot be guessed.
"""

from __future__ import annotations

import math
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from ui.page.widgets import history as messages
from ui.page.widgets.fields import QUICK
from ui.page.widgets.text import capital

if TYPE_CHECKING:
    from gradio.blocks import Block
    from gradio.components import Component

    from core.history import History, RunRow

PAGE = 48
ZIP_SECONDS = 3600.0  # how long an export can be downloaded
MOST_IDS = 100_000
EMPTY = "Images that you generate appear here, with their settings and steps."
# Only the newest request matters, not the one being answered.
_EACH: dict[str, Any] = {**QUICK, "trigger_mode": "multiple"}
_REFRESH = "() => { document.querySelector('#history .lch')?.dispatchEvent(new Event('refresh')); }"
_SAVE = "() => { document.querySelector('#history-zip')?.click(); }"


class HistoryPanel:
    """`build` it in the caller's layout, then `connect` it.

    history: gives the history; called each time, so that it can be opened late.
    sees: maps a browser's token to the owner whose runs it may see, or None for everyone's. An empty owner (a
        browser without a token yet) sees nothing.
    forget: called with runs that were deleted.
    """

    def __init__(
        self,
        history: Callable[[], History],
        sees: Callable[[str], str | None],
        forget: Callable[[Sequence[str]], None] = lambda runs: None,
    ) -> None:
        self._history, self._sees, self._forget = history, sees, forget

    def build(self) -> None:
        """Build the components."""
        self.grid = messages.grid()
        self.zip = gr.DownloadButton("Zip", visible="hidden", elem_id="history-zip")

    def connect(
        self,
        owner: Component,
        opened: Callable[[str, str], Sequence[Any]],
        outputs: Sequence[Block],
        tab: gr.Tab | None = None,
    ) -> None:
        """Wire the events. `owner` holds the browser's token.

        `opened(token, run id)` gives the updates for `outputs` that open a run, or raises UserError. Opening
        `tab` refreshes the list.
        """
        self._opened, self._outputs = opened, list(outputs)
        self.grid.ask(self.on_ask, owner, self.grid, **_EACH)
        self.grid.choose(self.on_choose, owner, self.grid, **_EACH)
        self.grid.star(self.on_star, owner, self.grid, **_EACH)
        self.grid.remove(self.on_remove, owner, self.grid, **_EACH)
        self.grid.pack(self.on_pack, owner, [self.grid, self.zip], **_EACH).success(
            None, None, None, js=_SAVE, api_visibility="private"
        )
        self.grid.reopen(self.on_reopen, owner, [self.grid, *self._outputs], **_EACH)
        if tab is not None:
            tab.select(None, None, None, js=_REFRESH, show_progress="hidden", api_visibility="private")

    # Requests from the grid.

    def on_ask(self, token: str, event: gr.EventData) -> Any:
        """A page of the matching runs."""
        page: dict[str, Any] = {"seq": _said(event, "seq"), "offset": _whole(_said(event, "offset"))}
        try:
            page.update(self._page(token, event, page["offset"]))
        except UserError as error:
            page["error"] = _sentence(error)
        return gr.HTML(page=page)

    def on_choose(self, token: str, event: gr.EventData) -> Any:
        """One run in detail."""
        try:
            run = self._whole(token, str(_said(event, "run")), _whole(_said(event, "image")))
        except UserError as error:
            run = {"error": _sentence(error), "nonce": secrets.token_hex(4)}
        return gr.HTML(run={**run, "seq": _said(event, "seq")})

    def on_star(self, token: str, event: gr.EventData) -> Any:
        """Star or unstar runs."""
        on, runs = bool(_said(event, "on")), _ids(event)

        def work(history: History, owner: str | None) -> dict[str, Any]:
            for run in runs:
                history.star(run, on, owner)
            return {"starred" if on else "unstarred": runs}

        return gr.HTML(done=self._do(token, work))

    def on_remove(self, token: str, event: gr.EventData) -> Any:
        """Delete runs; the page has asked for confirmation."""
        runs = _ids(event)

        def work(history: History, owner: str | None) -> dict[str, Any]:
            mine = list(history.covers(runs, owner))
            history.delete(mine, owner)
            self._forget(mine)
            return {"removed": mine}

        return gr.HTML(done=self._do(token, work))

    def on_pack(self, token: str, event: gr.EventData) -> tuple[Any, Any]:
        """A zip of runs, for the browser to download."""
        folder = Path(self.zip.GRADIO_CACHE) / "latentcanvas-zips"
        path = folder / secrets.token_hex(16) / "latentcanvas-runs.zip"

        def work(history: History, owner: str | None) -> dict[str, Any]:
            _remove_old(folder)
            path.parent.mkdir(parents=True)
            history.export_zip(_ids(event), path, owner)
            return {"packed": True}

        done = self._do(token, work)
        return gr.HTML(done=done), str(path) if "packed" in done else None

    def on_reopen(self, token: str, event: gr.EventData) -> list[Any]:
        """Open a run in the workbench."""
        run = str(_said(event, "run"))
        try:
            owner = self._owner(token)
            self._history().get(run, owner)
            return [gr.HTML(done={"nonce": secrets.token_hex(4)}), *self._opened(token, run)]
        except UserError as error:
            done = {"error": _sentence(error), "nonce": secrets.token_hex(4)}
            return [gr.HTML(done=done), *[gr.skip() for _ in self._outputs]]

    # Helpers.

    def _owner(self, token: object) -> str | None:
        """The owner whose runs are visible. Raises UserError for a browser without a token yet."""
        owner = self._sees(token if isinstance(token, str) else "")
        if owner == "":
            raise UserError("the page has no owner token yet: reload the page")
        return owner

    def _page(self, token: str, event: gr.EventData, offset: int) -> dict[str, Any]:
        history = self._history()
        try:
            owner = self._owner(token)
        except UserError:
            return {"rows": [], "total": 0, "models": [], "samplers": [], "note": EMPTY}
        text, asked = _text(_said(event, "text")), _filters(event)
        rows = history.search(text, limit=PAGE, offset=offset, owner=owner, **asked)
        covers = history.covers([row.id for row in rows], owner)
        return {
            "rows": [messages.tile(row, covers.get(row.id, b"")) for row in rows],
            "total": history.count(text, owner=owner, **asked),
            "models": history.models(owner),
            "samplers": history.samplers(owner),
            "note": EMPTY,
        }

    def _whole(self, token: str, run: str, image: int) -> dict[str, Any]:
        history, owner = self._history(), self._owner(token)
        row = history.get(run, owner)
        image = min(image, len(row.names) - 1)
        png = b""
        with suppress(OSError):
            png = history.path(row.names[image]).read_bytes()
        return messages.whole(
            row, image, png, history.thumbnails(run, owner), self._family(history, row, owner)
        )

    def _family(self, history: History, row: RunRow, owner: str | None) -> list[dict[str, Any]]:
        family = history.tree(row.id, owner)[: messages.MOST_RELATIVES]
        if len(family) < 2:
            return []
        covers = history.covers([member.id for member in family], owner)
        return [messages.relative(member, covers.get(member.id, b"")) for member in family]

    def _do(self, token: str, work: Callable[[History, str | None], dict[str, Any]]) -> dict[str, Any]:
        """The reply to a change, or its error; never equal to the previous reply."""
        try:
            done = work(self._history(), self._owner(token))
        except UserError as error:
            done = {"error": _sentence(error)}
        except OSError as error:
            done = {"error": f"The zip file cannot be written: {error.strerror or error}."}
        return {**done, "nonce": secrets.token_hex(4)}


def _said(event: gr.EventData, name: str) -> Any:
    """A field of the browser's request; None if missing."""
    return getattr(event, name, None)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else 0


def _ids(event: gr.EventData) -> list[str]:
    runs = _said(event, "runs")
    return [str(run) for run in runs[:MOST_IDS]] if isinstance(runs, list) else []


def _filters(event: gr.EventData) -> dict[str, Any]:
    """The valid filters; others are ignored, since the browser could send anything."""
    asked: dict[str, Any] = {}
    for name in ("model", "sampler"):
        asked[name] = _text(_said(event, name)) or None
    for name in ("since", "until"):
        value = _said(event, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        asked[name] = float(value) if number and abs(value) < 1e15 else None
    asked["starred"] = True if _said(event, "starred") is True else None
    return asked


def _sentence(error: UserError) -> str:
    said = capital(str(error))
    return said if said.endswith(".") else f"{said}."


def _remove_old(folder: Path) -> None:
    """Remove exports whose time has passed."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.stat().st_mtime < time.time() - ZIP_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
