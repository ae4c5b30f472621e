import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Generator, nn

from cmtool.features.train_small import DAMAGES, blur, damage, warp, whiten


def pictures():
    return torch.rand(4, 3, 16, 16, generator=Generator().manual_seed(0))


def test_no_damage_leaves_pictures_alone():
    x = pictures()
    torch.testing.assert_close(damage(x, torch.zeros(len(DAMAGES), 4), Generator()), x, rtol=0, atol=1e-5)


def test_blur_is_scipys_with_a_width_for_each_picture():
    x, widths = pictures(), torch.tensor([0.5, 1.0, 1.5, 2.0])
    planes = [
        gaussian_filter(p, (0, w, w), mode="mirror", radius=6) for p, w in zip(x.numpy(), widths.tolist(), strict=True)
    ]
    torch.testing.assert_close(blur(x, widths), torch.from_numpy(np.stack(planes)), rtol=0, atol=1e-5)


def test_warping_moves_a_ramp_by_no_more_than_its_reach():
    ramp = ((torch.arange(32) + 0.5) / 16 - 1).expand(2, 3, 32, 32)
    moved = warp(ramp, torch.tensor([0.1, 0.3]), Generator().manual_seed(0))
    inner = (moved - ramp)[..., 8:-8].abs().amax((1, 2, 3))
    # a bicubic curve may overshoot its nodes a little
    assert 0.05 < inner[0] < 0.13 and 0.15 < inner[1] < 0.39


def test_whitening_leaves_uncorrelated_columns_of_unit_variance_that_keep_the_most():
    generator = Generator().manual_seed(1)
    hidden = torch.randn(2000, 3, generator=generator)
    seen = hidden @ torch.randn(3, 8, generator=generator) + 0.01 * torch.randn(2000, 8, generator=generator) + 5
    layer = nn.Linear(8, 3)
    with torch.no_grad():
        whiten(layer, seen)
        white = layer(seen).double()
    torch.testing.assert_close(torch.cov(white.T), torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(white.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-3)
    left = hidden.double() - white @ torch.linalg.lstsq(white, hidden.double()).solution
    assert left.std() < 0.05
