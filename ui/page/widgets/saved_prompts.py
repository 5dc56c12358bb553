"""Styles and presets: the lists to choose from, and a drawer to save and delete them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from ui.page.widgets import text
from ui.page.widgets.fields import QUICK
from ui.service.styles import Style

if TYPE_CHECKING:
    from ui.service.styles import Styles


class KeptWords:
    """The row above the prompt, inside the caller's column. `styles` gives an owner's store."""

    def __init__(self, styles: Callable[[str], Styles]) -> None:
        self.styles = styles
        with gr.Row(elem_id="kept"):
            self.chosen = gr.Dropdown(
                [],
                value=[],
                multiselect=True,
                label="Styles",
                container=False,
                min_width=120,
                scale=3,
                elem_id="styles",
            )
            self.preset = gr.Dropdown(
                [],
                value=None,
                label="Preset",
                container=False,
                min_width=110,
                scale=2,
                elem_id="preset",
            )
            self.toggle = gr.Button(
                "Save", size="sm", min_width=56, scale=0, elem_id="keep", elem_classes="lc-small"
            )
        with gr.Column(visible=False, elem_id="drawer") as self.drawer:
            self.name = gr.Textbox(
                label="Name", max_lines=1, placeholder="Name of the style or preset", elem_id="keep-name"
            )
            with gr.Row():
                self.save_style = _button("Save prompt as style", "save-style")
                self.save_preset = _button("Save form as preset", "save-preset")
            with gr.Row():
                self.take = gr.UploadButton(
                    "Import styles.csv", file_types=[".csv"], size="sm", min_width=80, elem_id="import-styles"
                )
                self.forget = _button("Delete by name", "forget")
            self.said = gr.HTML("", elem_id="kept-said")

    def known(self, owner: str) -> tuple[list[str], list[str]]:
        """(names of all styles, names of all presets)"""
        store = self.styles(owner)
        return [style.name for style in store.styles()], store.presets()

    def applied(self, owner: str, names: list[str] | None, prompt: str, negative: str) -> tuple[str, str]:
        """Both prompts with the chosen styles. Raises UserError."""
        return self.styles(owner).apply(prompt, negative, names or []) if names else (prompt, negative)

    def load(self, owner: str, name: str) -> dict[str, Any]:
        """A preset's values. Raises UserError."""
        return self.styles(owner).preset(name)

    def connect(
        self,
        owner: Any,
        words: list[Any],
        values: list[Any],
        named: Callable[..., dict[str, Any]],
    ) -> None:
        """Wire the drawer. words: both prompts; values: the whole form, which `named` makes a mapping."""
        lists = [self.chosen, self.preset, self.said]
        self.toggle.click(
            None,
            None,
            self.drawer,
            js="() => ({__type__: 'update', visible: !document.querySelector('#drawer')})",
            **QUICK,
        )

        def keep_style(owner: str, name: str, prompt: str, negative: str) -> tuple[Any, ...]:
            style = Style(name, prompt, negative)
            return self._done(owner, f"Saved style {name}.", lambda s: s.save_style(style))

        def keep_preset(owner: str, name: str, *values: Any) -> tuple[Any, ...]:
            return self._done(owner, f"Saved preset {name}.", lambda s: s.save_preset(name, named(*values)))

        self.save_style.click(keep_style, [owner, self.name, *words], lists, **QUICK)
        self.save_preset.click(keep_preset, [owner, self.name, *values], lists, **QUICK)
        self.forget.click(self.on_forget, [owner, self.name], lists, **QUICK)
        self.take.upload(self.on_import, [owner, self.take], lists, **QUICK)

    def on_forget(self, owner: str, name: str) -> tuple[Any, ...]:
        """Delete the style and the preset of that name."""

        def forget(store: Styles) -> None:
            known = (name in [style.name for style in store.styles()], name in store.presets())
            if known[0] or not known[1]:
                store.delete_style(name)
            if known[1]:
                store.delete_preset(name)

        return self._done(owner, f"Deleted {name}.", forget)

    def on_import(self, owner: str, path: str) -> tuple[Any, ...]:
        """Import a styles.csv from A1111."""
        found: list[str] = []
        answer = self._done(owner, "", lambda s: found.append(str(s.import_csv(Path(path)))))
        return (*answer[:2], text.plain(found[0])) if found else answer

    def _done(self, owner: str, said: str, change: Callable[[Styles], None]) -> tuple[Any, ...]:
        try:
            change(self.styles(owner))
        except UserError as error:
            return gr.skip(), gr.skip(), text.error(str(error))
        styles, presets = self.known(owner)
        return gr.update(choices=styles), gr.update(choices=presets), text.plain(said)


def _button(label: str, elem_id: str) -> gr.Button:
    return gr.Button(label, size="sm", min_width=80, elem_id=elem_id, elem_classes="lc-small")
