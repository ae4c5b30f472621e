import numpy as np
import pytest
import torch

from cmtool.errors import BadFile, MissingInput, UsageError
from cmtool.evaluation.reference_formats import holds_statistics
from cmtool.evaluation.reference_statistics import check_comparable, read_statistics, write_statistics
from cmtool.evaluation.statistics import Statistics

MU, SIGMA = np.array([1.0, -2.0]), np.array([[2.0, 0.5], [0.5, 1.0]])


def npz(tmp_path, **arrays):
    path = tmp_path / "reference.npz"
    np.savez(path, **arrays)
    return path


def test_the_files_of_other_tools_are_read(tmp_path):
    # EDM and clean-fid: float64; pytorch-fid may be float32; the reference batches of ADM carry images as well
    for extra in ({}, {"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "mu_s": MU}):
        path = npz(tmp_path, mu=MU.astype(np.float32), sigma=SIGMA, **extra)
        read = read_statistics(path)
        assert holds_statistics(path)
        assert read.mean.tolist() == MU.tolist() and read.covariance.tolist() == SIGMA.tolist()
        assert read.mean.dtype == read.covariance.dtype == torch.float64
        assert (read.n, read.features, read.fingerprint, read.data) == (None, None, None, None)


def test_ours_come_back_whole_and_other_tools_find_their_keys(tmp_path):
    path = tmp_path / "mine.npz"
    ours = Statistics(torch.from_numpy(MU), torch.from_numpy(SIGMA), 1797, "FD-small", "small@abc", "digits, even")
    with open(path, "wb") as file:
        write_statistics(file, ours)
    read = read_statistics(path)
    assert torch.equal(read.mean, ours.mean) and torch.equal(read.covariance, ours.covariance)
    assert (read.n, read.features, read.fingerprint, read.data) == (1797, "FD-small", "small@abc", "digits, even")
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive) == {"mu", "sigma", "n", "features", "fingerprint", "data"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mu": MU[:1]}, r"mu must be \[D\]"),
        ({"sigma": SIGMA[0]}, r"mu must be \[D\]"),
        ({"sigma": np.array([[2.0, 0.5], [0.4, 1.0]])}, "not symmetric"),
        ({"mu": np.array([1.0, np.nan])}, "not finite"),
        ({"mu": np.array([1, 2])}, "floating-point"),
        ({"mu": np.array([1.0, None])}, "not a readable"),
        ({"n": np.array("many")}, "'n' is no count"),
    ],
)
def test_wrong_contents_are_refused(tmp_path, change, sentence):
    with pytest.raises(BadFile, match=sentence):
        read_statistics(npz(tmp_path, **{"mu": MU, "sigma": SIGMA, **change}))


def test_missing_keys_damaged_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(BadFile, match="no 'sigma'; it holds arr_0, mu"):
        read_statistics(npz(tmp_path, mu=MU, arr_0=MU))
    whole = npz(tmp_path, mu=MU, sigma=SIGMA).read_bytes()
    flipped = whole.replace(SIGMA.tobytes(), SIGMA[::-1].tobytes())
    assert flipped != whole
    single = tmp_path / "array.npy"
    np.save(single, MU)
    damaged = [b"", b"mu and sigma", whole[:-60], whole[:200], flipped, single.read_bytes()]
    for contents in damaged:
        path = tmp_path / "damaged.npz"
        path.write_bytes(contents)
        with pytest.raises(BadFile, match="not a readable"):
            read_statistics(path)
    assert not holds_statistics(single) and not holds_statistics(tmp_path)
    with pytest.raises(MissingInput, match="no file"):
        read_statistics(tmp_path / "nothing.npz")


def test_only_equal_features_are_comparable():
    mean, covariance = torch.zeros(2), torch.eye(2)
    known = Statistics(mean, covariance, fingerprint="a")
    check_comparable(known, Statistics(mean, covariance))
    check_comparable(known, Statistics(mean, covariance, fingerprint="a"))
    with pytest.raises(UsageError, match="different features: a and b"):
        check_comparable(known, Statistics(mean, covariance, fingerprint="b"))
    with pytest.raises(UsageError, match="different numbers of features: 2 and 3"):
        check_comparable(known, Statistics(torch.zeros(3), torch.eye(3)))
