"""Statistics of a data set in a file, in whatever way the tools of the field keep them (``reference_formats``).

Ours are an ``.npz`` with ``mu`` and ``sigma``, which EDM, pytorch-fid and clean-fid read, too; it also says what was
measured and with what: ``n``, ``features``, ``fingerprint`` and ``data``.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from cmtool.errors import BadFile, Hint, MissingInput, Setting, UsageError
from cmtool.evaluation.frechet import is_covariance
from cmtool.evaluation.reference_formats import WIDEST, FoundStatistics, find_statistics
from cmtool.evaluation.statistics import Normal, Statistics

__all__ = ["check_comparable", "read_statistics", "write_statistics"]


def read_statistics(path: str | Path, features: str = "inception") -> Statistics:
    """Read an ``.npz``, ``.pkl`` or ``.pt``; nothing in it is run. ``features`` chooses where a file has several.

    MissingInput when there is no such file; BadFile when it holds no such arrays, or wrong ones (shapes, finiteness
    and symmetry are checked).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInput(f"there is no file {path}")
    found = find_statistics(path, features)
    mean, covariance = _check_moments(path, found)
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    rows = None if found.rows is None else torch.from_numpy(np.asarray(found.rows, dtype=np.float32))
    spatial = None if found.spatial is None else Normal(*_check_moments(path, found.spatial))
    known = Statistics(mean, covariance, found.n, rows=rows, spatial=spatial, mode=found.mode, sha256=sha256)
    return replace(known, **found.words)


def write_statistics(file: BinaryIO, statistics: Statistics) -> None:
    """Write an ``.npz`` that ``read_statistics`` and the other tools read; spatial moments as guided-diffusion's."""
    facts = {key: getattr(statistics, key) for key in ("n", "features", "fingerprint", "data")}
    arrays: dict[str, Any] = {key: np.array(value) for key, value in facts.items() if value is not None}
    if statistics.spatial:
        arrays["mu_s"] = statistics.spatial.mean.cpu().numpy()
        arrays["sigma_s"] = statistics.spatial.covariance.cpu().numpy()
    np.savez(file, mu=statistics.mean.cpu().numpy(), sigma=statistics.covariance.cpu().numpy(), **arrays)


def check_comparable(a: Statistics, b: Statistics) -> None:
    """UsageError when the two were measured with different features; unknown features are taken on trust."""
    if a.fingerprint and b.fingerprint and a.fingerprint != b.fingerprint:
        raise UsageError(
            f"these statistics were measured with different features: {a.fingerprint} and {b.fingerprint}",
            Hint("measure both with the same {}", Setting("features")),
        )
    if a.mean.shape != b.mean.shape:
        raise UsageError(
            f"these statistics have different numbers of features: {len(a.mean)} and {len(b.mean)}",
            Hint("measure both with the same {}", Setting("features")),
        )
    if a.mode and b.mode and a.mode != b.mode:
        mode = Setting("features.mode", a.mode if a.data else b.mode)
        raise UsageError(
            f"these statistics were measured on images resized differently: {a.mode} and {b.mode}",
            Hint("{}, or the {} of whoever made the reference", mode, Setting("protocol")),
        )


def _check_moments(path: Path, found: FoundStatistics) -> tuple[Tensor, Tensor]:
    mu, sigma = np.asarray(found.mu), np.asarray(found.sigma)
    if len(mu.shape) != 1 or len(mu) > WIDEST or sigma.shape != (len(mu), len(mu)) or not len(mu):
        raise BadFile(f"{path}: mu must be [D] and sigma [D, D], not {list(mu.shape)} and {list(sigma.shape)}")
    if not all(np.issubdtype(array.dtype, np.floating) for array in (mu, sigma)):
        raise BadFile(f"{path}: mu and sigma must be floating-point numbers, not {mu.dtype} and {sigma.dtype}")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise BadFile(f"{path}: mu or sigma contain numbers that are not finite")
    mean, covariance = torch.from_numpy(mu.astype(np.float64)), torch.from_numpy(sigma.astype(np.float64))
    if (covariance - covariance.T).abs().max() > 1e-5 * covariance.abs().max():
        raise BadFile(f"{path}: sigma is not symmetric, so it is no covariance")
    covariance = (covariance + covariance.T) / 2
    if not is_covariance(covariance):
        raise BadFile(f"{path}: sigma has negative eigenvalues, so it is no covariance", "measure the statistics again")
    return mean, covariance
