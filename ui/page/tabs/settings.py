"""The page's settings: those that take effect at once, and those that apply from the next start.

On a shared page only the person at the machine may change them; guests can read them. Paths and other details
of the machine are hidden from guests.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from ui.page.widgets import text
from ui.page.widgets.fields import QUICK
from ui.service.page_settings import SECTIONS, SettingsStore, help_of, is_live
from ui.web.links import at_the_machine

if TYPE_CHECKING:
    from gradio.components import Component

    from ui.service.page_settings import PageConfig

HIDDEN_FROM_GUESTS = ("auth_file", "outputs", "model", "device", "dtype", "memory", "port")
NOT_SHOWN = "(not shown to guests)"
_HEADS = {
    ("page", True): "Take effect at once",
    ("guests", True): "For guests of a shared page",
    ("page", False): "Take effect at the next start",
}


class SettingsPanel:
    """The panel: `build` it inside the caller's layout, then `connect` it to the page."""

    def __init__(self, store: SettingsStore) -> None:
        self.store = store
        self.fields: dict[tuple[str, str], Component] = {}

    def build(self) -> None:
        """The controls, in the order of the headings."""
        with gr.Column(elem_id="settings"):
            self.about = gr.HTML("", elem_id="settings-about")
            for (section, live), head in _HEADS.items():
                gr.HTML(f"<h3>{head}</h3>")
                with gr.Row():
                    self._build_section(section, live)
            self.save = gr.Button("Save settings", variant="primary", elem_id="settings-save")
            self.notice = gr.HTML("", elem_id="settings-notice")

    def _build_section(self, section: str, live: bool) -> None:
        """Guest limits that need a restart are listed under the next start."""
        shown = [(section, name) for name in _names(section) if is_live(section, name) == live]
        if not live:
            shown += [("guests", name) for name in _names("guests") if not is_live("guests", name)]
        for key in shown:
            self.fields[key] = _control(*key)

    def connect(self, page: gr.Blocks) -> None:
        """Fill the controls when the page opens, and save them on request."""
        controls = list(self.fields.values())
        page.load(self.on_load, None, [self.about, self.save, *controls], **QUICK)
        self.save.click(self.on_save, controls, [self.notice, *controls], **QUICK)

    def on_load(self, request: gr.Request) -> list[Any]:
        """The file's values now, as this visitor may see them."""
        guest = is_guest(self.store, request)
        try:
            values = self._values(guest)
        except UserError as error:
            return [text.error(str(error)), gr.skip(), *[gr.skip() for _ in self.fields]]
        return [_about(self.store, guest), gr.Button(interactive=not guest), *values]

    def on_save(self, request: gr.Request, *values: Any) -> list[Any]:
        """Save the controls' values; on an error, show it and write nothing."""
        unchanged = [gr.skip() for _ in self.fields]
        if is_guest(self.store, request):
            sentence = "only the person at the machine that serves this page may change its settings"
            return [text.error(sentence), *unchanged]
        try:
            later = self._change(values)
        except UserError as error:
            return [text.error(str(error)), *unchanged]
        said = "Saved."
        if later:
            said += f" From the next start: {', '.join(name.replace('_', ' ') for name in later)}."
        return [text.plain(said), *self._values(guest=False)]

    def _change(self, values: tuple[Any, ...]) -> list[str]:
        """All at once, so that one bad value changes nothing; only values changed here, so that command-line
        options stay out of the file.
        """
        given: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        for key, old, value in zip(self.fields, self._shown(), values, strict=True):
            section, name = key
            typed = _typed(section, name, value)
            if typed != old:
                given[section][name] = typed
        return self.store.change(given)

    def _shown(self) -> list[Any]:
        """The active values of live settings, else those of the file. Raises UserError."""
        written: PageConfig = self.store.written()
        configs = [self.store.current if is_live(*key) else written for key in self.fields]
        keys = zip(configs, self.fields, strict=True)
        return [getattr(getattr(config, section), name) for config, (section, name) in keys]

    def _values(self, guest: bool) -> list[Any]:
        """Updates for the controls."""
        updates = []
        for (_, name), control, value in zip(self.fields, self.fields.values(), self._shown(), strict=True):
            shown = "" if value is None else value
            if guest and name in HIDDEN_FROM_GUESTS:
                shown = NOT_SHOWN if isinstance(control, gr.Textbox) else None
            updates.append(type(control)(value=shown, interactive=not guest))
        return updates


def is_guest(store: SettingsStore, request: gr.Request) -> bool:
    """Whether a request on a shared page comes from elsewhere: guests may not change settings or train."""
    if not store.current.shared:
        return False
    client = request.client.host if request.client else None
    return not at_the_machine(client, request.headers)


def _about(store: SettingsStore, guest: bool) -> str:
    if guest:
        return text.plain("You are a guest of this page: you can read its settings but not change them.")
    return text.plain(f"Saved in {store.path}. Command-line options take precedence.")


def _names(section: str) -> list[str]:
    return [item.name for item in dataclasses.fields(SECTIONS[section])]


def _control(section: str, name: str) -> Component:
    """A checkbox, number or text field, by the type of the default."""
    default = getattr(SECTIONS[section](), name)
    shared: dict[str, Any] = {
        "label": name.replace("_", " ").capitalize(),
        "info": help_of(section, name),
        "elem_id": f"setting-{section}-{name}".replace("_", "-"),
        "interactive": False,
        "min_width": 240,
    }
    if isinstance(default, bool):
        return gr.Checkbox(value=default, **shared)
    if isinstance(default, int | float):
        return gr.Number(value=default, precision=0 if isinstance(default, int) else None, **shared)
    return gr.Textbox(value="", max_lines=1, **shared)


def _typed(section: str, name: str, value: Any) -> Any:
    """The browser's value in the setting's type: None for an empty text, 4.0 for 4."""
    default = getattr(SECTIONS[section](), name)
    if default is None and value == "":
        return None
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
