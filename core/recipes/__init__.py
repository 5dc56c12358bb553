"""Anybody's picture, or the text that came with one, as a request that this program can run.

    found = read_any(Path("theirs.png"))
    found.request       # what can be asked for here
    found.report        # every key of theirs: kept, mapped (to what, why) or ignored (why)

Read are our own recipes, A1111's text (which Forge, Fooocus, Civitai and many more write too), ComfyUI's
graphs, InvokeAI's metadata of all its ages, and Fooocus' JSON; from PNG, JPEG, WebP, AVIF and GIF files, text
files, and pasted text. Nothing here imports torch, and no picture is decoded.
"""

from __future__ import annotations

from core.recipes.opened_recipe import OpenedRecipe as OpenedRecipe
from core.recipes.opened_recipe import ReportLine as ReportLine
from core.recipes.reader import read_any as read_any
