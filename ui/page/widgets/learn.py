"""A Learn view's result as HTML: sentences, plots that follow the theme, images and code."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from core.figures.contact_sheet import ImageRow, Plot
from core.figures.image_bytes import png
from core.figures.plots import LIGHT, Paper, svg
from ui.page.widgets.data_uris import png_uri
from ui.page.widgets.text import capital

if TYPE_CHECKING:
    from PIL.Image import Image

    from core.learn.code import Lines
    from core.learn.result import ViewResult


def shown_html(shown: ViewResult, narrow: bool) -> str:
    """The sentences, then the parts. narrow: for a phone."""
    words = "".join(f"<p>{escape(capital(sentence))}</p>" for sentence in shown.words)
    parts = "".join(_part(part, Paper(LIGHT, narrow)) for part in shown.parts)
    return f'<div class="lc-shown"><div class="lc-learn-words" role="status">{words}</div>{parts}</div>'


def code_html(found: Iterable[Lines]) -> str:
    """Each location with its lines of code."""
    blocks = "".join(
        f'<figure><figcaption>{escape(lines.where)}</figcaption><pre tabindex="0"><code>{escape(lines.text)}'
        "</code></pre></figure>"
        for lines in found
    )
    return f'<section class="lc-learn-code" aria-label="The code of this lesson">{blocks}</section>'


def _part(part: Plot | ImageRow, paper: Paper) -> str:
    if isinstance(part, Plot):
        return f'<div class="lc-learn-plot">{svg(part.draw(paper), part.words)}</div>'
    title = f"<h4>{escape(part.title)}</h4>" if part.title else ""
    pictures = "".join(_picture(words, image) for words, image in part.pictures)
    return f'{title}<div class="lc-learn-pictures" style="--lc-across: {part.across}">{pictures}</div>'


def _picture(words: str, image: Image) -> str:
    source = png_uri(png(image))
    label = escape(words, quote=True)
    return f'<figure><img src="{source}" alt="{label}"><figcaption>{label}</figcaption></figure>'
