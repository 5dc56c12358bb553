"""The words of the captions: every phrase that a caption is put together from, and nothing else.

In templates, {t} is the thing or things, {b} the background, {a} {b} {c} single things in the order of the
specification, {p} {q} {r} their places, {l} the land, {w} where, {m} hour, light and weather.
"""

from __future__ import annotations

COLORS: dict[str, tuple[str, ...]] = {
    "red": ("red",),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "cyan": ("cyan", "turquoise", "teal"),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "brown": ("brown",),
    "black": ("black",),
    "white": ("white",),
    "gray": ("gray", "grey"),
}
KINDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "circle", "circle", "disc", "ball"),
    "square": ("square", "square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "diamond": ("diamond", "diamond", "diamond", "rhombus"),
    "ring": ("ring", "ring", "ring", "hoop"),
    "cross": ("cross", "cross", "plus sign"),
}
PLURALS: dict[str, str] = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "heart": "hearts",
    "diamond": "diamonds",
    "ring": "rings",
    "cross": "crosses",
}
NUMBERS = ("two", "three")
SIZES: dict[str, tuple[str, ...]] = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("medium", "medium-sized"),
    "large": ("large", "large", "big", "big", "huge", "giant"),
}
OPENINGS = ("a picture of", "a drawing of", "an image of", "draw")

# ---------------------------------------------------------------- shapes

PLACES: dict[str, tuple[str, ...]] = {
    "top left": ("in the top left", "in the top left corner", "in the upper left", "at the top left"),
    "top": ("at the top", "at the top center", "near the top"),
    "top right": ("in the top right", "in the top right corner", "in the upper right", "at the top right"),
    "left": ("on the left", "on the left side", "at the left"),
    "center": ("in the center", "in the middle", "at the center", "in the centre"),
    "right": ("on the right", "on the right side", "at the right"),
    "bottom left": ("in the bottom left", "in the bottom left corner", "in the lower left"),
    "bottom": ("at the bottom", "at the bottom center", "near the bottom"),
    "bottom right": (
        "in the bottom right", "in the bottom right corner", "in the lower right", "at the bottom right",
    ),
}  # fmt: skip
AT_PLACE = ("{t} {p}", "{t} {p}", "{t} {p}", "{p}, {t}", "{p}: {t}")
BOTH_PLACES = ("{a} {p} and {b} {q}", "{a} {p}, {b} {q}", "{a} {p} and {b} {q}", "{p} {a} and {q} {b}")
THREE_PLACES = ("{a} {p}, {b} {q} and {c} {r}", "{a} {p}, {b} {q}, {c} {r}", "{c} {r}, {a} {p} and {b} {q}")
AND = ("{a} and {b}", "{a} and {b}", "{a} and {b}", "{a}, {b}", "{a} with {b}", "{a} & {b}")
RELATIONS: dict[str, tuple[str, ...]] = {
    "left of": (
        "{a} left of {b}",
        "{a} left of {b}",
        "{a} to the left of {b}",
        "{a} to the left of {b}",
        "{a} on the left of {b}",
        "{b} right of {a}",
        "{b} right of {a}",
        "{b} to the right of {a}",
        "{b} to the right of {a}",
        "{b} on the right of {a}",
        "{a} next to {b}",
        "{a} beside {b}",
        "{a} and {b} side by side",
        "{a} on the left and {b} on the right",
        "{b} on the right and {a} on the left",
        "on the left {a}, on the right {b}",
        "{a} is left of {b}",
        "{b} is to the right of {a}",
    ),
    "above": (
        "{a} above {b}",
        "{a} above {b}",
        "{a} above {b}",
        "{a} over {b}",
        "{a} on top of {b}",
        "{b} below {a}",
        "{b} below {a}",
        "{b} under {a}",
        "{b} beneath {a}",
        "{b} underneath {a}",
        "{a} at the top and {b} at the bottom",
        "{b} at the bottom and {a} at the top",
        "{a} is above {b}",
        "{b} is below {a}",
    ),
    "inside": (
        "{a} inside {b}",
        "{a} inside {b}",
        "{a} inside {b}",
        "{a} in {b}",
        "{a} within {b}",
        "{a} is inside {b}",
        "{b} with {a} inside",
        "{b} with {a} inside it",
        "{b} with {a} in it",
        "{b} around {a}",
        "{b} containing {a}",
    ),
}
LINED_UP: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "left of": (("side by side", "next to each other", "in a row"), ("in a row", "side by side")),
    "above": (("one above the other", "on top of each other", "in a column"), ("in a column",)),
}
THREE = ("{a}, {b} and {c}", "{a}, {b} and {c}", "{a}, {b}, {c}", "{a} and {b} and {c}", "{a}, {b}, and {c}")
THREE_LINED_UP: dict[str, tuple[str, ...]] = {
    "left of": (
        "{a}, {b} and {c} in a row",
        "{a}, {b} and {c} side by side",
        "from left to right: {a}, {b}, {c}",
        "from left to right {a}, {b} and {c}",
        "{b} between {a} on the left and {c} on the right",
    ),
    "above": (
        "{a}, {b} and {c} in a column",
        "from top to bottom: {a}, {b}, {c}",
        "from top to bottom {a}, {b} and {c}",
        "{a} above {b} above {c}",
    ),
}
PLAIN = (
    "{c} background", "{c} background", "{c} background", "{c} background", "plain {c} background",
    "solid {c} background", "{c} backdrop",
)  # fmt: skip
ON_COLOR = ("{t} on {c}", "{t} on {c}", "{t}, on {c}", "on {c}: {t}", "on {c}, {t}", "{t} on plain {c}")
SHADED: dict[str, tuple[str, ...]] = {
    "striped": ("striped {c} background", "{c} striped background", "{c} background with stripes"),
    "dotted": (
        "dotted {c} background", "{c} dotted background", "{c} background with dots", "spotted {c} backdrop",
    ),
}  # fmt: skip
TWO_COLORED: dict[str, tuple[str, ...]] = {
    "striped": (
        "{c} background with {d} stripes",
        "{c} background with {d} stripes",
        "{c} background striped with {d}",
        "{c} and {d} striped background",
        "{c} and {d} stripes",
    ),
    "dotted": (
        "{c} background with {d} dots",
        "{c} background with {d} dots",
        "{c} background dotted with {d}",
        "{c} background with {d} polka dots",
    ),
}
PATTERN_NOUNS = ("stripes", "dots")
ON_BACKGROUND = (
    "{t} on {b}",
    "{t} on {b}",
    "{t} on {b}",
    "{t} on {b}",
    "{t}, on {b}",
    "{t}, {b}",
    "{t} in front of {b}",
    "{t} against {b}",
    "on {b}: {t}",
    "on {b}, {t}",
    "{b} with {t}",
    "{b} with {t} on it",
    "{b}: {t}",
    "{b}, {t}",
)
ON_STRIPES = ("{t} on {b}", "{t}, on {b}", "{t} in front of {b}", "on {b}: {t}", "{b}: {t}", "{t}, {b}")

# ---------------------------------------------------------------- scenes

SCENE_KINDS: dict[str, tuple[str, ...]] = {
    "house": ("house", "house", "house", "cottage", "cabin", "hut"),
    "tree": ("tree",),
    "boat": ("boat", "boat", "sailboat", "ship"),
    "lighthouse": ("lighthouse",),
    "balloon": ("balloon", "hot air balloon", "hot-air balloon"),
    "castle": ("castle",),
    "windmill": ("windmill", "windmill", "mill"),
    "kite": ("kite",),
}
SCENE_PLACES: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left side", "to the left"),
    "middle": ("in the middle", "in the center", "in the centre"),
    "right": ("on the right", "on the right side", "to the right"),
}
SCENE_AND = ("{a} and {b}", "{a} and {b}", "{a}, {b}", "{a} with {b}")
SCENE_PAIR = (
    "{a} and {b}", "{a} and {b}", "{a} and {b}", "{a}, {b}", "{a} with {b}", "{a} next to {b}",
    "{a} beside {b}", "{a} left of {b}", "{b} right of {a}", "{a} to the left of {b}",
    "{b} to the right of {a}", "{a} near {b}",
)  # fmt: skip
FLYING_OVER = ("{a} above {b}", "{a} over {b}", "{a} flying over {b}", "{b} under {a}", "{a} and {b}")
LAND_NOUNS: dict[str, tuple[str, ...]] = {
    "hills": ("hill landscape", "landscape with hills", "landscape of rolling hills"),
    "mountains": ("mountain landscape", "landscape with mountains"),
    "sea": ("sea", "ocean", "seascape"),
    "desert": ("desert", "desert landscape"),
    "forest": ("forest", "forest landscape", "wood"),
    "meadow": ("meadow", "field of flowers", "field"),
}
LAND_PLURALS: dict[str, tuple[str, ...]] = {
    "hills": ("hills", "hills", "rolling hills"),
    "mountains": ("mountains",),
    "sea": ("sea", "ocean", "water", "waves"),
    "desert": ("desert", "desert", "sand dunes"),
    "forest": ("forest", "forest", "woods"),
    "meadow": ("meadow", "field", "meadow"),
}
ON_LAND: dict[str, tuple[str, ...]] = {
    "hills": ("on a {adj} hill", "on a {adj} hill", "on the {adj} hill", "in the {adj} {l}", "on {adj} {l}"),
    "mountains": ("in the {adj} {l}", "in the {adj} {l}", "in front of {adj} {l}", "below the {adj} {l}"),
    "sea": (
        "by the {adj} sea",
        "by the {adj} sea",
        "at the {adj} {l}",
        "on a {adj} island",
        "in the {adj} {l}",
    ),
    "desert": ("in the {adj} {l}", "in a {adj} desert", "in the {adj} {l}"),
    "forest": ("in the {adj} {l}", "in a {adj} forest", "in front of a {adj} forest", "at the {adj} forest"),
    "meadow": ("in a {adj} meadow", "on a {adj} meadow", "in the {adj} {l}", "in a {adj} field"),
}
ON_SEA = ("on the {adj} sea", "on the {adj} {l}", "sailing on the {adj} {l}", "in the {adj} sea")
OVER_LAND = (
    "over the {adj} {l}", "over the {adj} {l}", "above the {adj} {l}", "flying over the {adj} {l}",
    "floating over {adj} {l}", "in the sky over the {adj} {l}",
)  # fmt: skip
SKY: dict[str, tuple[str, ...]] = {
    "dawn": (
        "at dawn",
        "at dawn",
        "at sunrise",
        "in the early morning",
        "under a dawn sky",
        "in the morning",
    ),
    "day": ("by day", "during the day", "in the daytime", "under a blue sky", "on a bright day", "at noon"),
    "sunset": (
        "at sunset",
        "at sunset",
        "at dusk",
        "in the evening",
        "under a sunset sky",
        "under an orange sky",
    ),
    "night": (
        "at night",
        "at night",
        "at night",
        "by night",
        "in the night",
        "under a night sky",
        "at midnight",
    ),
    "storm": (
        "in a storm",
        "in a storm",
        "during a storm",
        "on a stormy day",
        "under a stormy sky",
        "in a thunderstorm",
    ),
}
SUNNY_DAY = ("on a sunny day", "in the sunshine", "on a sunny day", "in sunny weather", "under a sunny sky")
STARRY_NIGHT = (
    "on a starry night",
    "under a starry sky",
    "under a starry night sky",
    "at night under the stars",
)
LIGHT: dict[str, tuple[str, ...]] = {
    "sun": ("under the sun", "with the sun", "with a bright sun", "with the sun in the sky", "in the sun"),
    "full moon": ("under a full moon", "under a full moon", "with a full moon", "under the full moon"),
    "crescent moon": (
        "under a crescent moon", "under a crescent moon", "with a crescent moon", "under a half moon",
    ),
    "lightning": ("with lightning", "with lightning", "with a lightning bolt", "with lightning in the sky"),
}  # fmt: skip
ANY_MOON = ("under the moon", "with a moon", "in the moonlight", "by moonlight")
STARS = ("with stars", "under the stars", "with many stars", "with stars in the sky")
WEATHER: dict[str, tuple[str, ...]] = {
    "clouds": ("with clouds", "under clouds", "with clouds in the sky", "under a cloudy sky"),
    "rain": ("in the rain", "in the rain", "with rain", "while it rains", "on a rainy day"),
    "snow": ("in the snow", "in the snow", "with snow", "with snow falling", "while it snows", "in winter"),
}
WEATHER_ADJECTIVES: dict[str, tuple[str, ...]] = {
    "clouds": ("cloudy",),
    "rain": ("rainy",),
    "snow": ("snowy", "snowy", "snowy", "snow-covered", "winter"),
}
SKY_OVER: dict[str, tuple[str, ...]] = {
    "dawn": ("dawn", "sunrise", "early morning"),
    "day": ("a bright day", "a blue sky"),
    "sunset": ("sunset", "a sunset", "evening"),
    "night": ("night", "a night sky"),
    "storm": ("a storm", "a stormy sky", "a thunderstorm"),
}
LIGHT_OVER: dict[str, tuple[str, ...]] = {
    "sun": ("the sun", "a bright sun"),
    "full moon": ("a full moon", "the full moon"),
    "crescent moon": ("a crescent moon", "a half moon"),
    "lightning": ("lightning", "a lightning bolt"),
}
OVER = ("{s} over the {adj} {l}", "{s} over the {adj} {l}", "{s} above the {adj} {l}")
LAND_FIRST = ("{l} {m} with {t}", "{l} with {t} {m}", "{l} {m}, with {t}", "{l} {m}: {t}", "{l} {m}, {t}")
THINGS_FIRST = ("{t} {w} {m}", "{t} {w} {m}", "{t} {w} {m}", "{t} {w}, {m}", "{m}, {t} {w}", "{m} {t} {w}")
SCENE_OPENINGS = ("storybook landscape:", "landscape:", "storybook picture:", "storybook scene:")
SCENE_OPENINGS_OF = ("a storybook picture of", "a scene with", "a painting of", "an illustration of")
KEYWORDS: dict[str, tuple[str, ...]] = {
    "dawn": ("dawn", "sunrise", "morning"),
    "day": ("day", "blue sky"),
    "sunset": ("sunset", "evening", "dusk"),
    "night": ("night", "night sky"),
    "storm": ("storm", "stormy sky"),
    "sun": ("sun",),
    "full moon": ("full moon",),
    "crescent moon": ("crescent moon",),
    "lightning": ("lightning",),
    "clouds": ("clouds", "cloudy"),
    "rain": ("rain", "rainy"),
    "snow": ("snow", "snowy", "winter"),
    "hills": ("hills", "hill"),
    "mountains": ("mountains",),
    "sea": ("sea", "ocean"),
    "desert": ("desert",),
    "forest": ("forest",),
    "meadow": ("meadow",),
}
STAR_KEYWORD = "stars"
ARTICLES = ("a", "an")
STORMY = "stormy"
