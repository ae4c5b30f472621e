"""What an author tests: the contract of a method, and the formula of this one."""

import math

import pytest
import torch
from cmtool_smooth import smooth

from cmtool.errors import UsageError
from cmtool.options.plugin_option import options_of, parse_option
from cmtool.testing import check_objective


def test_smooth_keeps_the_contract_of_a_method():
    check_objective(smooth(narrow=8.0))


def test_noise_levels_start_apart_and_approach_each_other_at_every_step():
    u = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for progress, gap in ((0.0, 1.0), (0.5, 1 / 8), (0.75, 64**-0.75), (1.0, 1 / 64)):
        t, r = smooth(narrow=64.0).pair(u, progress)
        assert t[1].item() == pytest.approx(math.exp(-0.4))
        assert (1 - r / t).tolist() == pytest.approx([gap] * 3)


def test_noise_levels_that_never_approach_are_refused():
    with pytest.raises(UsageError, match=r"'narrow' .* at least 1.5, not 1"):
        parse_option(options_of(smooth)["narrow"], "'narrow'", 1.0)
