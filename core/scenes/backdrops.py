"""Where the storybook's things stand: places at an hour of the day, as SVG in a square of 256x256.

A picture is a grid of 8x8 cells, and what can be moved stands on them: the same thing then has few different
latents. What cannot be moved is in the place's own drawing.
"""

# ruff: noqa: E501  an SVG element is better read in one line
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

CELL = 32
SIDE = 256
RGB = tuple[int, int, int]
HOURS = ("day", "sunset", "night", "dawn", "rain")
# The sky from top to horizon.
SKIES: dict[str, tuple[RGB, ...]] = {
    "day": ((96, 178, 240), (206, 234, 252)),
    "sunset": ((92, 54, 132), (232, 98, 110), (255, 178, 92)),
    "night": ((10, 14, 46), (46, 58, 122)),
    "dawn": ((150, 164, 232), (255, 208, 196)),
    "rain": ((98, 112, 128), (168, 180, 190)),
}
# What light does to the colours of things: factors of red, green and blue.
LIGHT: dict[str, tuple[float, float, float]] = {
    "day": (1.0, 1.0, 1.0),
    "sunset": (0.92, 0.72, 0.68),
    "night": (0.36, 0.42, 0.6),
    "dawn": (0.98, 0.9, 0.92),
    "rain": (0.72, 0.76, 0.78),
}
_STARS = ((18, 20), (52, 44), (84, 14), (110, 58), (146, 26), (170, 66), (204, 18), (236, 50), (30, 82), (70, 104),
          (128, 92), (186, 108), (222, 90), (12, 122), (246, 128), (98, 130))  # fmt: skip
_FLAKES = ((14, 44), (40, 12), (66, 74), (92, 30), (116, 96), (140, 16), (158, 62), (186, 34), (210, 88), (232, 20),
           (248, 66), (30, 116), (84, 128), (136, 138), (176, 108), (226, 128))  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A kind of landscape.

    hours: at which it is drawn; floor: the row of cells that things stand on, or None where they float; open:
    whether the low sun can be seen.
    """

    name: str
    draw: Callable[[str], str]
    hours: tuple[str, ...] = HOURS
    floor: int | None = 7
    open: bool = False


def lit(color: RGB, hour: str) -> str:
    """The colour in the light of that hour, for SVG."""
    return "#" + "".join(f"{round(min(255, c * f)):02x}" for c, f in zip(color, LIGHT[hour], strict=True))


def hexed(color: RGB) -> str:
    """The colour for SVG."""
    return "#" + "".join(f"{c:02x}" for c in color)


def svg(elements: str, width: int = SIDE, box: int = SIDE) -> str:
    """A whole picture."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {box} {box}" width="{width}" height="{width}">'
        f"{elements}</svg>"
    )


def sky(hour: str, low: int = 160) -> str:
    """The sky down to `low`, with stars at night."""
    stops = SKIES[hour]
    shades = "".join(
        f'<stop offset="{i / (len(stops) - 1):.3f}" stop-color="{hexed(stop)}"/>'
        for i, stop in enumerate(stops)
    )
    drawn = (
        f'<defs><linearGradient id="s" gradientUnits="userSpaceOnUse" x1="0" y1="0" x2="0" y2="{low}">{shades}'
        '</linearGradient></defs><rect width="256" height="256" fill="url(#s)"/>'
    )
    if hour == "night":
        drawn += stars(_STARS)
    return drawn


def stars(places: tuple[tuple[int, int], ...], color: str = "#fff6d8") -> str:
    """Dots of two sizes."""
    return "".join(
        f'<circle cx="{x}" cy="{y}" r="{2.6 if i % 3 else 3.8}" fill="{color}"/>'
        for i, (x, y) in enumerate(places)
    )


def _ground(color: RGB, hour: str, top: int, curve: int = 0) -> str:
    """Everything below `top`; its edge is higher by `curve` in the middle."""
    return f'<path d="M0 {top + curve} Q128 {top - curve} 256 {top + curve} V256 H0 Z" fill="{lit(color, hour)}"/>'


def _pine(x: float, foot: float, height: float, color: str, trunk: str) -> str:
    w = height * 0.32
    parts = [
        f'<rect x="{x - 3}" y="{foot - height * 0.2}" width="6" height="{height * 0.2}" fill="{trunk}"/>'
    ]
    for low, high, wide in ((0.15, 0.6, 1.0), (0.4, 0.8, 0.78), (0.62, 1.0, 0.55)):
        parts.append(
            f'<polygon points="{x - w * wide},{foot - height * low} {x + w * wide},{foot - height * low} '
            f'{x},{foot - height * high}" fill="{color}"/>'
        )
    return "".join(parts)


def _meadow(hour: str) -> str:
    drawn = sky(hour) + _ground((150, 206, 96), hour, 152, 6) + _ground((112, 186, 78), hour, 192, -4)
    for x, y, petals in ((20, 236, (255, 226, 90)), (68, 216, (250, 250, 245)), (118, 244, (250, 130, 160)),
                         (164, 222, (255, 226, 90)), (206, 242, (250, 250, 245)), (242, 214, (250, 130, 160))):  # fmt: skip
        drawn += f'<rect x="{x - 1.5}" y="{y}" width="3" height="12" fill="{lit((70, 140, 60), hour)}"/>'
        drawn += f'<circle cx="{x}" cy="{y}" r="6" fill="{lit(petals, hour)}"/>'
        drawn += f'<circle cx="{x}" cy="{y}" r="2.5" fill="{lit((240, 170, 50), hour)}"/>'
    return drawn


def _hills(hour: str) -> str:
    return (
        sky(hour)
        + f'<ellipse cx="40" cy="214" rx="150" ry="92" fill="{lit((132, 190, 112), hour)}"/>'
        + f'<ellipse cx="222" cy="226" rx="130" ry="88" fill="{lit((104, 170, 96), hour)}"/>'
        + f'<ellipse cx="120" cy="272" rx="210" ry="84" fill="{lit((84, 150, 76), hour)}"/>'
    )


def _forest(hour: str) -> str:
    far, near, trunk = (lit(c, hour) for c in ((74, 132, 92), (44, 104, 66), (104, 74, 50)))
    drawn = sky(hour, 140) + f'<rect y="150" width="256" height="106" fill="{lit((88, 128, 66), hour)}"/>'
    for i in range(9):
        drawn += _pine(32 * i, 172, 112 + 14 * (i % 2), far, trunk)
    for i in range(8):
        drawn += _pine(16 + 32 * i, 190, 92 + 12 * (i % 3), near, trunk)
    return drawn + _ground((104, 146, 74), hour, 192, 3)


def _sea_band(hour: str, top: int, low: int) -> str:
    drawn = f'<rect y="{top}" width="256" height="{low - top}" fill="{lit((52, 134, 202), hour)}"/>'
    for row, y in enumerate(range(top + 12, low - 4, 20)):
        for x in range(-16 * (row % 2), 256, 64):
            drawn += (
                f'<path d="M{x + 8} {y} q8 -8 16 0 q8 8 16 0" fill="none" stroke="{lit((128, 194, 238), hour)}" '
                'stroke-width="3"/>'
            )
    return drawn


def _beach(hour: str) -> str:
    sand, foam = lit((244, 222, 160), hour), lit((240, 250, 255), hour)
    drawn = sky(hour, 128) + _sea_band(hour, 128, 180)
    drawn += f'<path d="M0 172 Q64 160 128 172 T256 172 V256 H0 Z" fill="{foam}"/>'
    drawn += f'<path d="M0 180 Q64 168 128 180 T256 180 V256 H0 Z" fill="{sand}"/>'
    for x, y in ((28, 238), (88, 222), (150, 244), (222, 230)):
        drawn += f'<ellipse cx="{x}" cy="{y}" rx="7" ry="5" fill="{lit((250, 170, 150), hour)}"/>'
    return drawn


def _sea(hour: str) -> str:
    return sky(hour, 128) + _sea_band(hour, 128, 256)


def _underwater(hour: str) -> str:
    drawn = (
        '<defs><linearGradient id="w" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="#58c4e4"/>'
        '<stop offset="1" stop-color="#12549a"/></linearGradient></defs><rect width="256" height="256" fill="url(#w)"/>'
        '<path d="M0 232 Q64 214 128 230 T256 226 V256 H0 Z" fill="#e2cf94"/>'
    )
    for x, height in ((14, 96), (34, 64), (224, 72), (244, 112)):
        drawn += (
            f'<path d="M{x} 240 q-14 -{height * 0.25} 0 -{height * 0.5} q14 -{height * 0.25} 0 -{height * 0.5}" '
            'fill="none" stroke="#2f9c64" stroke-width="8" stroke-linecap="round"/>'
        )
    for x, y, r in ((60, 60, 7), (70, 34, 5), (196, 84, 7), (188, 52, 5), (204, 26, 4), (122, 22, 5)):
        drawn += f'<circle cx="{x}" cy="{y}" r="{r}" fill="#bfeaf6" fill-opacity="0.8"/>'
    return drawn


def _desert(hour: str) -> str:
    far, near, front = (lit(c, hour) for c in ((236, 190, 120), (244, 206, 138), (232, 184, 108)))
    return (
        sky(hour)
        + f'<polygon points="150,164 198,92 246,164" fill="{lit((214, 164, 96), hour)}"/>'
        + f'<polygon points="198,92 246,164 214,164" fill="{lit((184, 134, 74), hour)}"/>'
        + f'<path d="M0 150 Q60 128 128 152 T256 158 V256 H0 Z" fill="{far}"/>'
        + f'<path d="M0 186 Q90 160 170 186 T256 180 V256 H0 Z" fill="{near}"/>'
        + f'<path d="M0 222 Q70 206 150 224 T256 216 V256 H0 Z" fill="{front}"/>'
    )


def _snow(hour: str) -> str:
    needles, trunk = lit((88, 142, 128), hour), lit((120, 90, 70), hour)
    drawn = sky(hour) + _ground((226, 236, 248), hour, 148, 8)
    for x, foot, height in ((22, 168, 72), (60, 160, 52), (204, 162, 60), (240, 170, 80)):
        drawn += _pine(x, foot, height, needles, trunk)
        tip = foot - height
        drawn += f'<polygon points="{x - 7},{tip + 17} {x + 7},{tip + 17} {x},{tip - 1}" fill="{lit((250, 252, 255), hour)}"/>'
    drawn += _ground((246, 250, 255), hour, 180, 6)
    for x, y in _FLAKES:
        drawn += f'<circle cx="{x}" cy="{y}" r="{2.8 + (x + y) % 2}" fill="#ffffff" fill-opacity="0.9"/>'
    return drawn


def _mountains(hour: str) -> str:
    stone, dark, white = (lit(c, hour) for c in ((136, 146, 170), (104, 114, 142), (250, 252, 255)))
    drawn = sky(hour)
    for x, top, half in ((44, 66, 84), (216, 58, 88), (128, 34, 92)):
        slope = half / (192 - top)
        cap = top + 42
        drawn += f'<polygon points="{x - half},192 {x},{top} {x + half},192" fill="{stone}"/>'
        drawn += f'<polygon points="{x},{top} {x + half},192 {x + half * 0.25},192" fill="{dark}"/>'
        w = slope * (cap - top)
        drawn += (
            f'<polygon points="{x},{top} {x + w},{cap} {x + w * 0.4},{cap - 10} {x},{cap + 6} {x - w * 0.4},{cap - 10} '
            f'{x - w},{cap}" fill="{white}"/>'
        )
    return drawn + _ground((120, 176, 100), hour, 178, 4)


def _city(hour: str) -> str:
    drawn = sky(hour, 192)
    window = "#ffdf7e" if hour in ("night", "sunset") else lit((206, 232, 248), hour)
    tall = (96, 132, 80, 148, 112, 140, 88, 120)
    walls = (
        (206, 120, 104),
        (124, 146, 178),
        (226, 184, 120),
        (112, 122, 152),
        (190, 150, 160),
        (146, 168, 150),
    )
    for i, height in enumerate(tall):
        x, top = 32 * i, 200 - height
        drawn += f'<rect x="{x}" y="{top}" width="32" height="{height}" fill="{lit(walls[i % 6], hour)}"/>'
        for y in range(top + 10, 190, 20):
            for dx in (6, 19):
                drawn += f'<rect x="{x + dx}" y="{y}" width="7" height="10" fill="{window}"/>'
    drawn += f'<rect y="192" width="256" height="12" fill="{lit((196, 196, 200), hour)}"/>'
    drawn += f'<rect y="204" width="256" height="52" fill="{lit((112, 114, 124), hour)}"/>'
    for i in range(4):
        drawn += (
            f'<rect x="{16 + 64 * i}" y="236" width="32" height="6" fill="{lit((246, 240, 214), hour)}"/>'
        )
    return drawn


def _space(hour: str) -> str:
    more = tuple((x, 256 - y) for x, y in _STARS)
    return (
        '<rect width="256" height="256" fill="#140f33"/><ellipse cx="76" cy="180" rx="130" ry="60" fill="#2a1c5c"/>'
        '<ellipse cx="190" cy="70" rx="110" ry="56" fill="#221a52"/>'
        + stars(_STARS)
        + stars(more)
        + '<circle cx="226" cy="32" r="20" fill="#e07a5a"/><path d="M208 26 q18 8 36 0" stroke="#b85a40" '
        'stroke-width="5" fill="none"/><circle cx="24" cy="226" r="15" fill="#6fc3d8"/>'
    )


def _moon(hour: str) -> str:
    drawn = '<rect width="256" height="256" fill="#0c0e22"/>' + stars(_STARS)
    drawn += '<circle cx="48" cy="48" r="26" fill="#3f8fd8"/><path d="M30 40 q12 -16 26 -6 q4 12 -10 16 q-10 10 -16 -10Z" '
    drawn += 'fill="#58b368"/><path d="M0 176 Q128 144 256 176 V256 H0 Z" fill="#c4c6ce"/>'
    for x, y, r in ((40, 208, 20), (118, 236, 16), (216, 204, 22), (170, 186, 10)):
        drawn += f'<ellipse cx="{x}" cy="{y}" rx="{r}" ry="{r * 0.5}" fill="#a2a5b0"/>'
    return drawn


def _room(hour: str) -> str:
    wall = lit((250, 226, 190), hour if hour != "night" else "sunset")
    stops = SKIES[hour]
    drawn = f'<rect width="256" height="256" fill="{wall}"/>'
    drawn += '<rect x="32" y="32" width="64" height="64" rx="4" fill="#fffdf6"/>'
    drawn += f'<rect x="38" y="38" width="52" height="52" fill="{hexed(stops[len(stops) // 2 - 1 if hour == "night" else -1])}"/>'
    if hour == "night":
        drawn += '<circle cx="76" cy="52" r="7" fill="#fff2b8"/>'
    drawn += '<rect x="61" y="38" width="6" height="52" fill="#fffdf6"/><rect x="38" y="61" width="52" height="6" fill="#fffdf6"/>'
    drawn += '<rect x="176" y="40" width="40" height="48" fill="#a8683c"/><rect x="182" y="46" width="28" height="36" fill="#8fcf9f"/>'
    drawn += (
        '<circle cx="196" cy="60" r="7" fill="#f6c64a"/><rect y="184" width="256" height="8" fill="#fff6e4"/>'
    )
    floor = lit((196, 138, 88), "day" if hour != "night" else "sunset")
    drawn += f'<rect y="192" width="256" height="64" fill="{floor}"/>'
    return (
        drawn
        + '<ellipse cx="128" cy="226" rx="104" ry="20" fill="#d8605c"/><ellipse cx="128" cy="226" rx="80" ry="13" fill="#f2a48c"/>'
    )


def _garden(hour: str) -> str:
    post, bush = lit((252, 250, 244), hour), lit((86, 158, 82), hour)
    drawn = sky(hour) + f'<rect y="150" width="256" height="106" fill="{lit((136, 196, 92), hour)}"/>'
    for x in range(-8, 280, 48):
        drawn += f'<circle cx="{x}" cy="150" r="32" fill="{bush}"/>'
    for i, x in enumerate(range(4, 260, 32)):
        flower = ((250, 110, 130), (255, 220, 90), (200, 130, 230))[i % 3]
        drawn += f'<circle cx="{x + 8}" cy="{134 + 8 * (i % 2)}" r="6" fill="{lit(flower, hour)}"/>'
    drawn += f'<rect y="162" width="256" height="6" fill="{post}"/><rect y="182" width="256" height="6" fill="{post}"/>'
    for x in range(4, 256, 32):
        drawn += f'<path d="M{x} 200 V156 l6 -8 l6 8 V200 Z" fill="{post}"/><path d="M{x + 16} 200 V156 l6 -8 l6 8 V200 Z" fill="{post}"/>'
    return drawn


def _clouds(hour: str) -> str:
    drawn = sky(hour, 256)
    puff = lit((255, 255, 255), hour) if hour != "night" else "#5a6696"
    for x, y in ((40, 222), (104, 238), (168, 226), (228, 240), (16, 246), (134, 250)):
        drawn += f'<circle cx="{x}" cy="{y}" r="36" fill="{puff}"/>'
    return drawn


PLACES: dict[str, Place] = {
    place.name: place
    for place in (
        Place("meadow", _meadow, open=True),
        Place("hills", _hills),
        Place("forest", _forest),
        Place("beach", _beach, open=True),
        Place("sea", _sea, open=True),
        Place("underwater", _underwater, ("day",), None),
        Place("desert", _desert, open=True),
        Place("snow", _snow),
        Place("mountains", _mountains),
        Place("city", _city),
        Place("space", _space, ("night",), None),
        Place("moon", _moon, ("night",)),
        Place("room", _room, ("day", "night")),
        Place("garden", _garden),
        Place("clouds", _clouds, floor=None, open=True),
    )
}
INDOORS = frozenset({"underwater", "space", "moon", "room"})  # without a sky of the hour


def cloud(hour: str) -> str:
    """A small cloud, in a square of 64x64."""
    puff = (
        lit((255, 255, 255), hour)
        if hour not in ("night", "rain")
        else ("#56618f" if hour == "night" else "#d4dae0")
    )
    return (
        f'<g fill="{puff}"><circle cx="18" cy="20" r="10"/><circle cx="32" cy="16" r="13"/><circle cx="46" cy="20" r="10"/>'
        '<rect x="10" y="20" width="44" height="10" rx="5"/></g>'
    )


# What may stand in the sky: elements in a square of 64x64, two cells a side.
LIGHTS: dict[str, str] = {
    "sun": '<circle cx="32" cy="32" r="22" fill="#ffd84a"/><circle cx="32" cy="32" r="27" fill="#ffe48a" fill-opacity="0.45"/>',
    "low sun": '<circle cx="32" cy="32" r="24" fill="#ffd27a"/>',
    "full moon": '<circle cx="32" cy="32" r="22" fill="#f6f0d2"/><circle cx="25" cy="27" r="5" fill="#ded6b2"/>'
    '<circle cx="39" cy="38" r="4" fill="#ded6b2"/>',
    "half moon": '<path d="M40 12 a22 22 0 1 0 12 34 a18 18 0 1 1 -12 -34Z" fill="#f6f0d2"/>',
}


RAIN = "".join(
    f'<path d="M{x + 12 + 16 * (y // 32 % 2)} {y + 6} l-5 16" stroke="#d6e6f4" stroke-width="3" stroke-opacity="0.8"/>'
    for y in range(0, 256, 32)
    for x in range(0, 256, 32)
)
RAINBOW = "".join(
    f'<path d="M{24 + 7 * i} 192 a{104 - 7 * i} {120 - 7 * i} 0 0 1 {208 - 14 * i} 0" fill="none" stroke="{color}" stroke-width="7.5"/>'
    for i, color in enumerate(("#f0564e", "#f8a04a", "#f8e05a", "#6cc86c", "#56a0e8", "#9a6cd0"))
)
