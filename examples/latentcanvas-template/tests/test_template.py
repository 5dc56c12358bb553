"""Everything that LatentCanvas asks of a sampler, on denoisers that are known exactly: no model, seconds."""

import pytest
from latentcanvas_template import rk2

from latentcanvas.testing import check_sampler


@pytest.mark.parametrize("share", [0.1, 0.5, 2 / 3])
def test_it_keeps_the_contract(share: float) -> None:
    report = check_sampler(rk2, order=2, evals=2, options={"share": share})
    assert report.passed, str(report)
