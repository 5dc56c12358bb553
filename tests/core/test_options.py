"""A sampler's options come from its signature; values and their text are checked against them."""

from __future__ import annotations

import functools
import math
import reprlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.sampling.contract import Range, Step
from core.sampling.options import Option, RegistrationError, check_options, read_options

if TYPE_CHECKING:
    from somewhere import Unknown  # pyrefly: ignore[missing-import]


def rich(
    denoise: Unknown,
    x: Unknown,
    sigmas: Unknown,
    noise: Unknown,
    *,
    eta: Annotated[float, Range(0, 1, 0.1), "how much"] = 1,
    order: Annotated[int, Range(1, 3)] = 2,
    corrected: bool = False,
    solver: Literal["midpoint", "heun"] = "midpoint",
    free: float = -2.5,
) -> Iterator[Step]:
    yield Step(0, 0.0, x, x)


def test_options_are_read_from_the_signature() -> None:
    """Though the other annotations name what only type checkers see."""
    assert read_options(rich) == (
        Option("eta", "float", 1.0, low=0, high=1, step=0.1, help="how much"),
        Option("order", "int", 2, low=1, high=3),
        Option("corrected", "bool", False),
        Option("solver", "choice", "midpoint", choices=("midpoint", "heun")),
        Option("free", "float", -2.5),
    )
    assert type(read_options(rich)[0].default) is float


def test_a_partial_and_a_wrapped_sampler_are_read_too() -> None:
    @functools.wraps(rich)
    def wrapped(*args: Any, **options: Any) -> Iterator[Step]:
        yield from rich(*args, **options)

    assert read_options(wrapped) == read_options(rich)
    assert read_options(functools.partial(rich, eta=0.5))[0].default == 0.5


def bad(signature: str, body: str = "yield") -> Any:
    scope: dict[str, Any] = {"Annotated": Annotated, "Range": Range, "Literal": Literal}
    exec(f"from __future__ import annotations\ndef odd({signature}):\n    {body}", scope)
    return scope["odd"]


FOUR = "denoise, x, sigmas, noise"


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        ("denoise, x, sigmas", "must take"),
        (f"{FOUR}, more", "must take"),
        (f"{FOUR}, eta: float = 1.0", "put `\\*` after"),
        (f"{FOUR}, *rest", "takes any arguments"),
        (f"{FOUR}, **options", "takes any arguments"),
        (f"{FOUR}, *, eta: float", "eta needs a default"),
        (f"{FOUR}, *, eta=1.0", "eta needs a type"),
        (f"{FOUR}, *, eta: Missing = 1.0", "cannot be read .name 'Missing' is not defined"),
        (f"{FOUR}, *, eta: str = 'a'", "must be a float, int, bool or a Literal"),
        (f"{FOUR}, *, eta: Literal[1, 2] = 1", "must be a float, int, bool or a Literal"),
        (f"{FOUR}, *, eta: list[float] = 1", "must be a float, int, bool or a Literal"),
        (f"{FOUR}, *, eta: Annotated[bool, Range(0, 1)] = True", "has a Range"),
        (f"{FOUR}, *, eta: Annotated[float, Range(1, 0)] = 1.0", "cannot be read"),
        (f"{FOUR}, *, eta: Annotated[float, Range(0, 1)] = 2.0", "default .* from 0 to 1, not 2.0"),
        (f"{FOUR}, *, eta: float = True", "default .* a number, not True"),
        (f"{FOUR}, *, eta: float = None", "default .* a number, not None"),
        (f"{FOUR}, *, eta: float = float('nan')", "default .* a number, not nan"),
        (f"{FOUR}, *, eta: float = '1.0'", "default .* a number, not '1.0'"),
        (f"{FOUR}, *, eta: int = 1.5", "default .* a whole number, not 1.5"),
        (f"{FOUR}, *, eta: bool = 1", "default .* true or false, not 1"),
        (f"{FOUR}, *, eta: Literal['a', 'b'] = 'c'", "default .* one of a, b, not 'c'"),
    ],
)
def test_a_bad_signature_is_shown(signature: str, reason: str) -> None:
    with pytest.raises(RegistrationError, match=reason) as caught:
        read_options(bad(signature))
    assert "odd(denoise, x, sigmas" in str(caught.value)


def test_what_is_no_generator_function_is_refused() -> None:
    with pytest.raises(
        RegistrationError, match=r"odd\(denoise, x, sigmas, noise\) is not a generator function"
    ):
        read_options(bad(FOUR, "return []"))
    for thing in (len, 3, print):
        with pytest.raises(RegistrationError):
            read_options(thing)  # pyrefly: ignore[bad-argument-type]


ETA = Option("eta", "float", 1.0, low=0.0, high=1.0)
COUNT = Option("count", "int", 2, low=1, high=3)
FLAG = Option("flag", "bool", False)
KIND = Option("kind", "choice", "a", choices=("a", "b"))


@pytest.mark.parametrize(
    ("option", "given", "value"),
    [
        (ETA, 0, 0.0),
        (ETA, 1.0, 1.0),
        (ETA, "0.25", 0.25),
        (ETA, "1e-1", 0.1),
        (COUNT, 3, 3),
        (COUNT, 3.0, 3),
        (COUNT, "2", 2),
        (FLAG, True, True),
        (FLAG, "yes", True),
        (FLAG, "False", False),
        (KIND, "b", "b"),
    ],
)
def test_a_good_value_or_its_text(option: Option, given: object, value: object) -> None:
    found = option.check(given)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("option", "given", "sentence"),
    [
        (ETA, 1.5, "Option eta must be a number from 0 to 1, not 1.5."),
        (ETA, "much", "Option eta must be a number from 0 to 1, not 'much'."),
        (ETA, math.nan, "Option eta must be a number from 0 to 1, not nan."),
        (ETA, "inf", "Option eta must be a number from 0 to 1, not 'inf'."),
        (ETA, True, "Option eta must be a number from 0 to 1, not True."),
        (ETA, None, "Option eta must be a number from 0 to 1, not None."),
        (ETA, 10**400, f"Option eta must be a number from 0 to 1, not {reprlib.repr(10**400)}."),
        (COUNT, 4, "Option count must be a whole number from 1 to 3, not 4."),
        (COUNT, 1.5, "Option count must be a whole number from 1 to 3, not 1.5."),
        (COUNT, "1.5", "Option count must be a whole number from 1 to 3, not '1.5'."),
        (FLAG, 1, "Option flag must be true or false, not 1."),
        (FLAG, "maybe", "Option flag must be true or false, not 'maybe'."),
        (KIND, "c", "Option kind must be one of a, b, not 'c'."),
        (KIND, 1, "Option kind must be one of a, b, not 1."),
    ],
)
def test_a_bad_value_is_a_sentence(option: Option, given: object, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        option.check(given)
    assert str(caught.value) == sentence


@given(st.one_of(st.floats(), st.integers(), st.text(), st.booleans(), st.none()))
@settings(deadline=None)
def test_whatever_comes_is_a_value_inside_or_a_sentence(given: object) -> None:
    for option in (ETA, COUNT, FLAG, KIND):
        try:
            value = option.check(given)
        except UserError:
            continue
        assert option.check(value) == value
        assert option.check(str(value)) == value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert option.low is not None
            assert option.high is not None
            assert option.low <= value <= option.high


def test_all_options_together() -> None:
    assert check_options("It", (ETA, FLAG), {"flag": "on"}) == {"eta": 1.0, "flag": True}
    with pytest.raises(UserError, match=r"It has no option 'eat'; did you mean 'eta'\?"):
        check_options("It", (ETA, FLAG), {"eat": 1})
    with pytest.raises(UserError, match=r"It has no options, so 'eta' cannot be set\."):
        check_options("It", (), {"eta": 1})
