"""Reads the recipe in any program's image or text, as a request that LatentCanvas can run.

    found = read_any(Path("theirs.png"))
    found.request       # what can be run here
    found.report        # every key of the source: kept, mapped (to what, why) or ignored (why)

Supported are our own recipes, A1111's text (which Forge, Fooocus, Civitai and many more also write),
ComfyUI's graphs, every version of InvokeAI's metadata, and Fooocus' JSON; from PNG, JPEG, WebP, AVIF and GIF
files, text files, and pasted text. Nothing here imports torch, and no image is decoded.
"""

from __future__ import annotations

from core.recipes.opened_recipe import OpenedRecipe as OpenedRecipe
from core.recipes.opened_recipe import ReportLine as ReportLine
from core.recipes.reader import read_any as read_any
