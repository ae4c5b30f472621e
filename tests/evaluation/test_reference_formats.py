"""Statistics as the tools of the field write them."""

import pickle

import numpy as np
import pytest
import torch

from cmtool.errors import BadFile, UsageError
from cmtool.evaluation.reference_formats import holds_statistics
from cmtool.evaluation.reference_statistics import check_comparable, read_statistics

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(50, 3)).astype(np.float32)
MU, SIGMA = ROWS.astype(np.float64).mean(0), np.cov(ROWS.astype(np.float64).T)


def written(path, document, protocol=4):
    path.write_bytes(pickle.dumps(document, protocol))
    return path


def same(found, rel=1e-12):
    assert found.mean.numpy() == pytest.approx(MU, rel=rel)
    assert found.covariance.numpy() == pytest.approx(SIGMA, rel=rel)


@pytest.mark.parametrize("protocol", [3, 4])
def test_edm2_has_one_file_for_several_features(tmp_path, protocol):
    dino = {"mu": np.zeros(2), "sigma": np.eye(2)}
    path = written(
        tmp_path / "ref.pkl", {"num_images": 50, "fid": {"mu": MU, "sigma": SIGMA}, "fd_dinov2": dino}, protocol
    )
    assert holds_statistics(path)
    same(read_statistics(path))
    assert read_statistics(path).n == 50
    assert read_statistics(path, "dinov2").mean.tolist() == [0, 0]
    with pytest.raises(BadFile, match="no statistics of the features 'small'; it holds fd_dinov2, fid, num_images"):
        read_statistics(path, "small")


def test_stylegan_keeps_sums(tmp_path):
    exact = ROWS.astype(np.float64)
    document = {"capture_all": False, "num_items": 50, "raw_mean": exact.sum(0), "raw_cov": exact.T @ exact}
    found = read_statistics(written(tmp_path / "a.pkl", document | {"all_features": None, "max_items": None}))
    assert found.mean.numpy() == pytest.approx(MU, rel=1e-12) and found.n == 50
    assert found.covariance.numpy() == pytest.approx(SIGMA * 49 / 50, rel=1e-9)  # divided by n


def test_guided_diffusion_has_spatial_moments_and_lu_short_names(tmp_path):
    images = np.zeros((2, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "adm.npz", arr_0=images, mu=MU, sigma=SIGMA, mu_s=MU[:2], sigma_s=np.eye(2))
    np.savez(tmp_path / "lu.npz", m2=MU, s2=SIGMA)
    found = read_statistics(tmp_path / "adm.npz")
    same(found)
    same(read_statistics(tmp_path / "lu.npz"))
    assert found.spatial is not None and found.spatial.mean.tolist() == MU[:2].tolist()
    assert holds_statistics(tmp_path / "lu.npz")


def test_features_themselves_give_the_moments_and_stay(tmp_path):
    np.savez(tmp_path / "digits_clean_train_32_kid.npz", feats=ROWS)
    torch.save(torch.from_numpy(ROWS), tmp_path / "features.pt")
    torch.save({"mu": MU, "sigma": SIGMA}, tmp_path / "stats.pt")
    for name in ("digits_clean_train_32_kid.npz", "features.pt"):
        found = read_statistics(tmp_path / name)
        same(found)
        assert found.rows is not None and np.array_equal(found.rows.numpy(), ROWS) and found.n == 50
    same(read_statistics(tmp_path / "stats.pt"))


def test_clean_fid_tells_the_mode_by_the_name_of_the_file(tmp_path):
    paths = [tmp_path / f"cifar10_{mode}_train_32.npz" for mode in ("legacy_tensorflow", "clean")]
    for path in paths:
        np.savez(path, mu=MU, sigma=SIGMA)
    one, two = map(read_statistics, paths)
    assert (one.mode, two.mode) == ("legacy_tensorflow", "clean")
    with pytest.raises(UsageError, match="resized differently: legacy_tensorflow and clean"):
        check_comparable(one, two)


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_nothing_in_a_file_is_run_and_damage_is_one_sentence(tmp_path):
    with pytest.raises(BadFile, match=r"asks for 'builtins\.exec'"):
        read_statistics(written(tmp_path / "trap.pkl", {"fid": Trap()}))
    torch.save({"mu": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(BadFile, match=r"asks for .builtins\.exec."):
        read_statistics(tmp_path / "trap.pt")
    whole = written(tmp_path / "a.pkl", {"mu": MU, "sigma": SIGMA}).read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 2):
        (tmp_path / "cut.pkl").write_bytes(whole[:cut])
        with pytest.raises(BadFile):
            read_statistics(tmp_path / "cut.pkl")


ODD = {
    "of far more than the file": {"mu": np.zeros(2), "sigma": np.zeros((4096, 4096))},
    "whose sigma is negative": {"mu": MU, "sigma": -SIGMA},
    "whose sigma has a negative eigenvalue": {"mu": np.zeros(2), "sigma": np.array([[1.0, 2.0], [2.0, 1.0]])},
    "that are complex": {"mu": MU.astype(complex), "sigma": SIGMA},
    "that are texts": {"mu": np.array(["a", "b"]), "sigma": SIGMA},
    "of whole numbers": {"mu": MU.astype(int), "sigma": SIGMA.astype(int)},
    "of a count below 0": {"mu": MU, "sigma": SIGMA, "n": np.array(-1)},
    "of half a count": {"mu": MU, "sigma": SIGMA, "n": np.array(0.5)},
    "of many counts": {"mu": MU, "sigma": SIGMA, "n": np.arange(3)},
    "of no known features": {"mu": MU, "sigma": SIGMA, "features": np.arange(3)},
    "of no features": {"mu": np.zeros(0), "sigma": np.zeros((0, 0))},
    "of features that are too wide": {"feats": np.zeros((2, 20_000), np.float32)},
    "of one image": {"feats": np.zeros((1, 4), np.float32)},
    "with one half missing": {"sigma": SIGMA},
    "without anything": {},
}


@pytest.mark.parametrize("name", ODD)
def test_statistics_that_are_none(name, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **ODD[name])
    with pytest.raises(BadFile) as caught:
        read_statistics(tmp_path / "a.npz")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "held",
    [
        {"raw_mean": np.zeros(100_000), "raw_cov": np.zeros(4), "num_items": 3},
        {"raw_mean": 1.0, "raw_cov": 1.0, "num_items": 3},
        {"raw_mean": MU, "raw_cov": SIGMA, "num_items": 0},
        {"fid": {"mu": MU}, "num_images": 2},
        {"fid": [MU, SIGMA]},
        {"mu": {"mu": MU}, "sigma": SIGMA},
        [MU, SIGMA],
        3,
        "text",
    ],
)
def test_pickles_that_are_no_statistics(held, tmp_path):
    with pytest.raises(BadFile):
        read_statistics(written(tmp_path / "a.pkl", held))


def test_covariances_summed_in_single_precision_are_still_some(tmp_path):
    rows = np.random.default_rng(0).standard_normal((20, 200)).astype(np.float32)
    centred = rows - rows.mean(axis=0)
    np.savez(tmp_path / "a.npz", mu=rows.mean(axis=0), sigma=centred.T @ centred / 19)
    assert read_statistics(tmp_path / "a.npz").mean.shape == (200,)
