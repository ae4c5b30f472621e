"""cmtool: from images to a one-step generator.

A denoiser maps a noisy image and its noise level to a clean one, a solver walks from one level to another, an
objective says how far two walks disagree; everything else carries images in and out.
"""

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path, device="cpu"):
    """Read a checkpoint: a module called as ``model(x, sigma, labels) -> x_0``, with its ``header``.

    ``x`` is [B, C, H, W] in [-1, 1] plus noise of standard deviation ``sigma`` [B]; ``labels`` is [B] (int64) or None.
    Raises MissingInput when there is no such file, BadFile when it is damaged or is no checkpoint.
    """
    from cmtool.files.checkpoint import load as load_checkpoint

    return load_checkpoint(path, device=device)
