"""How the tools of the field keep statistics of a data set: what their keys mean.

EDM, pytorch-fid, clean-fid    .npz  mu, sigma
clean-fid, for KID             .npz  feats [N, D]
guided-diffusion, OpenAI       .npz  mu, sigma, mu_s, sigma_s of spatial features, arr_0 images
LU                             .npz  m2, s2
EDM2                           .pkl  num_images, fid: {mu, sigma}, fd_dinov2: {mu, sigma}
StyleGAN, ECT                  .pkl  num_items, raw_mean and raw_cov: sums of x and of x x^T
torch-fidelity                 .pt   mu, sigma, or the features themselves
"""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cmtool.errors import BadFile, report_damage
from cmtool.files.safe_pickle.torch_files import read_arrays
from cmtool.files.safe_pickle.zip_reader import open_zip

__all__ = ["WIDEST", "FoundStatistics", "find_statistics", "holds_statistics"]

PICKLED = (".pkl", ".pt")
PAIRS = (("mu", "sigma"), ("m2", "s2"))
SETS = ({"mu", "sigma"}, {"m2", "s2"}, {"feats"})  # what makes an .npz a file of statistics
EDM2 = {"inception": "fid", "dinov2": "fd_dinov2"}
WORDS = ("features", "fingerprint", "data")
KEYS = {"mu", "sigma", "m2", "s2", "mu_s", "sigma_s", "feats", "n", *WORDS}
LARGEST, RATIO = 1 << 26, 8  # bytes of an array whatever it was compressed to, and how much more than those
WIDEST = 1 << 14  # features of an image
NAMED = re.compile(r"_(clean|legacy_tensorflow|legacy_pytorch)_")  # clean-fid tells the mode by the name alone
HINT = "reference statistics are an .npz with the keys mu and sigma"


@dataclass(frozen=True)
class FoundStatistics:
    """Arrays as they stand in a file, unchecked, and what else it says."""

    mu: Any
    sigma: Any
    n: int | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    rows: Any = None
    spatial: "FoundStatistics | None" = None
    mode: str | None = None


def holds_statistics(path: str | Path) -> bool:
    """Whether the file is an ``.npz`` of statistics, or a kind of file that could be nothing else that is measured.

    Nothing but the table of contents is read.
    """
    if Path(path).suffix in PICKLED:
        return Path(path).is_file()
    if not Path(path).is_file():
        return False
    try:
        with open(path, "rb") as file:
            names = {name.removesuffix(".npy") for name in open_zip(file).namelist()}
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return False
    return any(keys <= names for keys in SETS)


def find_statistics(path: Path, features: str) -> FoundStatistics:
    """The statistics of ``features`` in a file; BadFile when it has none."""
    with report_damage(path, "has no statistics that can be read", HINT):
        held = read_arrays(path) if path.suffix in PICKLED else _arrays(path)
        held = held if isinstance(held, Mapping) else {"feats": held}
        named = NAMED.search(path.name)
        return replace(_understood(path, held, features), mode=named[1] if named else None)


def _understood(path: Path, held: Mapping[str, Any], features: str) -> FoundStatistics:
    if isinstance(held.get("fid"), Mapping):
        inside = held.get(EDM2.get(features, features))
        if not isinstance(inside, Mapping):
            raise BadFile(f"{path} has no statistics of the features '{features}'; it holds {', '.join(sorted(held))}")
        return replace(_pair(path, inside), n=_count(path, held.get("num_images")))
    if {"raw_mean", "raw_cov", "num_items"} <= set(held):
        return _sums(path, held)
    if "feats" in held:
        return _rows(path, np.asarray(held["feats"]))
    spatial = FoundStatistics(held["mu_s"], held["sigma_s"]) if {"mu_s", "sigma_s"} <= set(held) else None
    words = {key: _word(path, key, held[key]) for key in WORDS if key in held}
    return replace(_pair(path, held), n=_count(path, held.get("n")), words=words, spatial=spatial)


def _pair(path: Path, held: Mapping[str, Any]) -> FoundStatistics:
    mean, covariance = next((keys for keys in PAIRS if keys[0] in held), PAIRS[0])
    missing = [key for key in (mean, covariance) if key not in held]
    if missing:
        raise BadFile(f"{path} has no '{missing[0]}'; it holds {', '.join(sorted(held)) or 'nothing'}", HINT)
    return FoundStatistics(held[mean], held[covariance])


def _sums(path: Path, held: Mapping[str, Any]) -> FoundStatistics:
    """From sums to the mean and to the covariance divided by n, as StyleGAN's tools do."""
    n = _count(path, held["num_items"])
    if not n:
        raise BadFile(f"{path} counts no images")
    mean, squares = (np.asarray(held[key], dtype=np.float64) / n for key in ("raw_mean", "raw_cov"))
    if mean.ndim != 1 or squares.shape != (len(mean), len(mean)):
        raise BadFile(f"{path}: raw_mean must be [D] and raw_cov [D, D]")
    return FoundStatistics(mean, squares - np.outer(mean, mean), n)


def _rows(path: Path, rows: np.ndarray) -> FoundStatistics:
    if rows.ndim != 2 or len(rows) < 2 or not np.issubdtype(rows.dtype, np.floating):
        raise BadFile(f"{path}: features must be floating-point numbers [N, D], not {list(rows.shape)}")
    if not 0 < rows.shape[1] <= WIDEST:
        raise BadFile(f"{path}: features must be at most {WIDEST} of an image, not {rows.shape[1]}")
    exact = rows.astype(np.float64)
    return FoundStatistics(exact.mean(axis=0), np.atleast_2d(np.cov(exact, rowvar=False)), len(rows), rows=rows)


def _count(path: Path, value: Any) -> int | None:
    if value is None:
        return None
    array = np.asarray(value)
    if array.ndim or not np.issubdtype(array.dtype, np.integer) or not 0 <= int(array) < 1 << 53:
        raise BadFile(f"{path}: 'n' is no count of images")
    return int(array)


def _word(path: Path, key: str, value: Any) -> str:
    array = np.asarray(value)
    if array.ndim or array.dtype.kind != "U":
        raise BadFile(f"{path}: '{key}' is no text")
    return str(array)


def _arrays(path: Path) -> Mapping[str, Any]:
    """The arrays of an ``.npz`` that say something here, without the images of a reference batch, and all names."""
    with report_damage(path, "is not a readable .npz file", HINT), open(path, "rb") as file:
        entries = open_zip(file).infolist()
        for entry in entries:
            if entry.filename.removesuffix(".npy") in KEYS and entry.file_size > max(
                LARGEST, RATIO * entry.compress_size
            ):
                raise BadFile(f"{path} has an array '{entry.filename}' that is far larger than the file", HINT)
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] if key in KEYS else None for key in archive}
