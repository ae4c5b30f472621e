"""What ``sample`` writes is data: images and classes come back from each of its formats, and the same from all."""

import pytest
import torch
from tiny import random_model

from cmtool.core.noise import LABEL, Noise
from cmtool.datasets.folder import folder

COUNT = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("model") / "model.safetensors", (1, 8, 8), 4)


@pytest.mark.parametrize("name", ["out", "x.tar", "x.zip", "x.npz", "x.npy"])
def test_labels_come_back(well, model, tmp_path, name):
    well("sample", "-m", model, "-n", str(COUNT), "-o", f"{tmp_path / name}", "--steps", "1", "--classes", "uniform")
    data = folder(tmp_path / name)
    images, labels = data.batch(range(COUNT))
    drawn = (Noise(range(COUNT)).uniform(LABEL) * 4).long().tolist()
    well("sample", "-m", model, "-n", str(COUNT), "-o", f"{tmp_path}/again.tar", "--steps", "1", "--classes", "uniform")
    assert torch.equal(images, folder(tmp_path / "again.tar").batch(range(COUNT))[0])
    if name == "x.npy":  # which has room for images alone
        assert labels is None
    else:
        assert labels.tolist() == drawn
