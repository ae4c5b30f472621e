"""Statistics of a data set in a file: ``.npz`` with ``mu`` and ``sigma``, as EDM, pytorch-fid and clean-fid keep them.

Ours also say what was measured and with what: ``n``, ``features``, ``fingerprint`` and ``data``.
"""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from cmtool.errors import BadFile, MissingInput, UsageError

__all__ = ["Statistics", "comparable", "holds_statistics", "read_statistics", "write_statistics"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean [D] and covariance [D, D] in float64, and where they come from as far as it is known."""

    mean: Tensor
    covariance: Tensor
    n: int | None = None
    features: str | None = None
    fingerprint: str | None = None
    data: str | None = None


def holds_statistics(path: str | Path) -> bool:
    """Whether the file is an ``.npz`` with ``mu`` and ``sigma``; nothing but its table of contents is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"mu.npy", "sigma.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_statistics(path: str | Path) -> Statistics:
    """Read ``mu`` [D] and ``sigma`` [D, D]; no pickled object is read.

    MissingInput when there is no such file; BadFile when it holds no such arrays, or wrong ones (shapes, finiteness
    and symmetry are checked).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInput(f"there is no file {path}")
    arrays = _arrays(path)
    missing = [key for key in ("mu", "sigma") if key not in arrays]
    if missing:
        raise BadFile(
            f"{path} has no '{missing[0]}'; it holds {', '.join(sorted(arrays)) or 'nothing'}",
            "reference statistics are an .npz with the keys mu and sigma",
        )
    mean, covariance = _checked(path, arrays["mu"], arrays["sigma"])
    count = arrays.get("n")
    if count is not None and not (count.ndim == 0 and np.issubdtype(count.dtype, np.integer)):
        raise BadFile(f"{path}: 'n' is no count of images")
    words = {key: str(arrays[key]) for key in ("features", "fingerprint", "data") if key in arrays}
    return Statistics(mean, covariance, n=None if count is None else int(count), **words)


def write_statistics(file: BinaryIO, statistics: Statistics) -> None:
    """Write an ``.npz`` that ``read_statistics`` and the other tools read."""
    facts = {key: getattr(statistics, key) for key in ("n", "features", "fingerprint", "data")}
    arrays: dict[str, Any] = {key: np.array(value) for key, value in facts.items() if value is not None}
    np.savez(file, mu=statistics.mean.cpu().numpy(), sigma=statistics.covariance.cpu().numpy(), **arrays)


def comparable(a: Statistics, b: Statistics) -> None:
    """UsageError when the two were measured with different features; unknown features are taken on trust."""
    if a.fingerprint and b.fingerprint and a.fingerprint != b.fingerprint:
        raise UsageError(
            f"these statistics were measured with different features: {a.fingerprint} and {b.fingerprint}",
            "measure both with the same --features",
        )
    if a.mean.shape != b.mean.shape:
        raise UsageError(
            f"these statistics have different numbers of features: {len(a.mean)} and {len(b.mean)}",
            "measure both with the same --features",
        )


def _arrays(path: Path) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except (ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise BadFile(
            f"{path} is not a readable .npz file", "reference statistics are an .npz with mu and sigma"
        ) from error


def _checked(path: Path, mu: np.ndarray, sigma: np.ndarray) -> tuple[Tensor, Tensor]:
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not len(mu):
        raise BadFile(f"{path}: mu must be [D] and sigma [D, D], not {list(mu.shape)} and {list(sigma.shape)}")
    if not all(np.issubdtype(array.dtype, np.floating) for array in (mu, sigma)):
        raise BadFile(f"{path}: mu and sigma must be floating-point numbers, not {mu.dtype} and {sigma.dtype}")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise BadFile(f"{path}: mu or sigma contain numbers that are not finite")
    mean, covariance = torch.from_numpy(mu.astype(np.float64)), torch.from_numpy(sigma.astype(np.float64))
    if (covariance - covariance.T).abs().max() > 1e-5 * covariance.abs().max():
        raise BadFile(f"{path}: sigma is not symmetric, so it is no covariance")
    return mean, (covariance + covariance.T) / 2
