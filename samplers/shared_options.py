"""The options that several samplers have, named as in k-diffusion and A1111."""

from __future__ import annotations

from typing import Annotated

from latentcanvas import Range

Eta = Annotated[float, Range(0, 1, 0.05), "fresh noise at each step: 0 is none, 1 the method's default"]
Churn = Annotated[float, Range(0, 100, 0.5), "noise added before each step, divided among all steps"]
ChurnLow = Annotated[float, Range(0, 1000, 0.01), "noise level below which none is added"]
ChurnHigh = Annotated[float, Range(0, 1000, 0.01), "noise level above which none is added"]
NoiseScale = Annotated[float, Range(0, 2, 0.001), "strength of the added noise; 1 is exact"]
