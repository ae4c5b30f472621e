"""cmtool: from images to a one-step generator.

A denoiser maps a noisy image and its noise level to a clean one, a solver walks from one level to another, an
objective says how far two walks disagree; everything else carries images in and out.
"""

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path, device="cpu", format=None, backbone=None):
    """Read a model, ours, bundled or foreign; it is called as ``loaded(x, sigma, labels) -> x_0``.

    The result is a ``LoadedModel`` with the network, ``model``, and what the file says of it, ``header``.

    ``x`` is [B, C, H, W] in [-1, 1] plus noise of standard deviation ``sigma`` [B]; ``labels`` is [B] (int64) or None.
    ``format`` and ``backbone`` are mappings of what the file of another program leaves open, such as
    ``format={"kind": "consistency"}, backbone={"head_width": 64}``. Raises MissingInput when there is no such file,
    BadFile when it is damaged or is no model, UsageError when something must be said.
    """
    from pathlib import Path

    from cmtool.bundled import find_bundled
    from cmtool.files.model_files import open_any

    return open_any(find_bundled(Path(path)), device, format, backbone)
