"""How near a picture is to the true one: PSNR and SSIM."""

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d

__all__ = ["psnr", "ssim"]


def psnr(image: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio of uint8 [C, H, W], ``20 log10(255 / sqrt(mean (a - b)^2))`` dB; inf when equal."""
    error = float((image.double() - truth.double()).square().mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(image: Tensor, truth: Tensor) -> float:
    """Structural similarity of uint8 [C, H, W], the mean over channels and over places where the window fits.

        ((2 m_a m_b + c_1) (2 s_ab + c_2)) / ((m_a^2 + m_b^2 + c_1) (s_a^2 + s_b^2 + c_2))

    with ``c_1 = (0.01 255)^2``, ``c_2 = (0.03 255)^2`` and moments under a Gaussian window of 11x11 pixels and standard
    deviation 1.5; smaller pictures have the largest odd window that fits.
    Source: Wang et al. 2004, Image quality assessment: from error visibility to structural similarity.
    """
    a, b = (picture.double()[:, None] for picture in (image, truth))
    window = _window(min(11, *((side - 1) // 2 * 2 + 1 for side in image.shape[1:])))
    m_a, m_b, aa, bb, ab = (conv2d(moment, window) for moment in (a, b, a * a, b * b, a * b))
    c_1, c_2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * m_a * m_b + c_1) * (2 * (ab - m_a * m_b) + c_2)
    below = (m_a**2 + m_b**2 + c_1) * (aa - m_a**2 + bb - m_b**2 + c_2)
    return float((above / below).mean())


def _window(n: int) -> Tensor:
    line = torch.exp(-((torch.arange(n, dtype=torch.float64) - n // 2) ** 2) / (2 * 1.5**2))
    return (torch.outer(line, line) / line.sum() ** 2)[None, None]
