"""PSNR and SSIM against their definitions and against another way of computing moments."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cmtool.evaluation.psnr_ssim import psnr, ssim

RNG = np.random.default_rng(0)


def images(side, spread=20):
    truth = RNG.integers(40, 200, (3, side, side), dtype=np.uint8)
    near = np.clip(truth + RNG.normal(0, spread, truth.shape), 0, 255).astype(np.uint8)
    return torch.from_numpy(near), torch.from_numpy(truth)


def test_psnr_of_a_constant_error():
    truth = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    assert psnr(truth + 5, truth) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(truth, truth) == math.inf


@pytest.mark.parametrize("side", [11, 32])
def test_ssim_by_filters_of_scipy(side):
    """The same window as scipy cuts it, at the places where it fits."""
    near, truth = images(side)
    total = []
    for a, b in zip(near.numpy().astype(float), truth.numpy().astype(float), strict=True):
        moments = [gaussian_filter(m, 1.5, truncate=5 / 1.5)[5:-5, 5:-5] for m in (a, b, a * a, b * b, a * b)]
        m_a, m_b, aa, bb, ab = moments
        c_1, c_2 = 2.55**2, 7.65**2
        top = (2 * m_a * m_b + c_1) * (2 * (ab - m_a * m_b) + c_2)
        total.append(top / ((m_a**2 + m_b**2 + c_1) * (aa - m_a**2 + bb - m_b**2 + c_2)))
    assert ssim(near, truth) == pytest.approx(float(np.mean(total)), rel=1e-9)


def test_ssim_is_one_for_equals_and_falls_with_noise():
    values = [ssim(*images(16, spread)) for spread in (1, 10, 40)]
    assert values == sorted(values, reverse=True)
    _, truth = images(8)
    assert ssim(truth, truth) == pytest.approx(1)
    assert ssim(255 - truth, truth) < 0
