"""Forward derivatives against central differences, alone and on two threads at once."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch.nn import functional as F

from cmtool.core.derivative import along


def test_it_is_the_central_difference_also_through_attention():
    def net(x):
        return F.scaled_dot_product_attention(x, x.sin(), x.cos())

    x, d = torch.randn(2, 3, 2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    value, slope = along(net, (x,), (d,))
    with torch.no_grad():
        secant = (net(x + 1e-5 * d) - net(x - 1e-5 * d)) / 2e-5
    torch.testing.assert_close(slope, secant, rtol=0, atol=1e-6)
    assert not value.requires_grad and not slope.requires_grad


def test_threads_do_not_lose_each_others_derivatives():
    def slope(k: int) -> float:
        x = torch.full((400, 400), float(k))
        return float(along(lambda x: (x @ x).sin().sum() * 0 + x.sum() * k, (x,), (torch.ones_like(x),))[1])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(slope, range(40))) == [160_000.0 * k for k in range(40)]
