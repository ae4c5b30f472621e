"""Real images from a data set and from PNG files are the same images, down to the samples of what they train."""

import pytest
import torch
from PIL import Image

from cmtool.cli import run
from cmtool.datasets.digits import digits
from cmtool.files.checkpoint import load

TINY = ["--images", "192", "--batch", "32", "--snapshots", "0", "--no-conditional", "-q"]
NET = ["--set", "backbone.model_channels=16", "--set", "backbone.channel_mult=[1,2]", "--set", "backbone.num_blocks=1"]


@pytest.fixture
def pictures(tmp_path):
    data, folder = digits(None), tmp_path / "pictures"
    folder.mkdir()
    for i in range(300):
        Image.fromarray(data[i][0][0].numpy()).save(folder / f"{i:04d}.png")
    return folder


def test_the_same_seed_gives_the_same_model_and_samples(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, data in (("a", "digits[:300]"), ("b", str(pictures))):
        assert run(["train-ct", "--data", data, "--run-dir", name, *TINY, *NET]) == 0
        assert run(["sample", "--model", f"{name}/model.safetensors", "-n", "20", "-o", f"{name}-out", "-q"]) == 0
    one, two = (load(f"{name}/model.safetensors").model.state_dict() for name in "ab")
    assert all(torch.equal(one[key], two[key]) for key in one)
    files = sorted((tmp_path / "a-out").glob("*.png"))  # beside them a manifest, which names the model
    assert len(files) == 20
    assert all(file.read_bytes() == (tmp_path / "b-out" / file.name).read_bytes() for file in files)
