"""Classifier-free guidance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Away from the unconditional estimate, by `scale` (Ho and Salimans 2022, arXiv:2207.12598, eq. 6).

    Here `scale` is 1 + w of the paper: 1 gives the conditional estimate, 0 the unconditional one. It is
    linear, so it may be applied to clean estimates as well as to predicted noise.
    """
    return unconditional + scale * (conditional - unconditional)
