import dataclasses
import hashlib
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from cmtool.errors import BadFile, MissingAsset, UsageError
from cmtool.features import inception as module
from cmtool.features.inception import INCEPTION, inception


class Layers(nn.Module):
    """The first pixels, as the network's 2048 features: what went in can be read off what comes out."""

    def forward(self, x):
        return x.flatten(1)[:, :2048]


class StandIn(nn.Module):
    """TorchScript with the interface of the real file: ``layers``, and a call that resizes by itself."""

    def __init__(self):
        super().__init__()
        self.layers = Layers()

    def forward(self, x, return_features: bool = False):
        x = nn.functional.interpolate(x, [299, 299], mode="bilinear", align_corners=True)
        return self.layers(x) if return_features else x


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "any name.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(StandIn()).save(str(path))
    return path


@pytest.fixture
def trusted(weights, monkeypatch):
    """The stand-in passes for the published file."""
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "INCEPTION", dataclasses.replace(INCEPTION, sha256=sha256))
    return str(weights)


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8))


def pil(image):
    from PIL import Image

    rows = [
        np.asarray(Image.fromarray(c.astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)) for c in image
    ]
    return np.clip(np.stack(rows), 0, 255)


def test_clean_mode_is_pillows_bicubic_in_floating_point(trusted, images, capsys):
    features = inception(weights=trusted)
    expected = np.stack([(pil(image) - 128) / 128 for image in images.numpy()]).reshape(3, -1)[:, :2048]
    np.testing.assert_allclose(features(images), expected, rtol=0, atol=1e-6)
    assert (features.label, features.dim) == ("FID", 2048)
    assert capsys.readouterr().out == ""


def test_the_old_modes_resize_their_own_way(trusted, images):
    bilinear = nn.functional.interpolate(images.float(), [299, 299], mode="bilinear", align_corners=False)
    got = inception(weights=trusted, mode="legacy_pytorch")(images)
    torch.testing.assert_close(got, (bilinear.flatten(1)[:, :2048] - 128) / 128, rtol=0, atol=1e-6)
    inside = nn.functional.interpolate(images.float(), [299, 299], mode="bilinear", align_corners=True)
    got = inception(weights=trusted, mode="legacy_tensorflow")(images)
    torch.testing.assert_close(got, inside.flatten(1)[:, :2048], rtol=0, atol=1e-4)


def test_modes_have_fingerprints_of_their_own(trusted):
    assert len({inception(weights=trusted, mode=mode).fingerprint for mode in module.MODES}) == 3
    with pytest.raises(UsageError, match="unknown mode") as caught:
        inception(weights=trusted, mode="claen")
    assert caught.value.hint == "did you mean 'clean'?"


def test_grey_images_count_as_colour_and_batches_do_not_matter(trusted, images):
    features = inception(weights=trusted)
    grey = images[:, :1]
    assert torch.equal(features(grey), features(grey.repeat(1, 3, 1, 1)))
    assert torch.equal(features(images), torch.cat([features(image[None]) for image in images]))


def test_warnings_are_heard_again_afterwards(trusted, images):
    inception(weights=trusted, mode="legacy_pytorch")(images)
    with pytest.warns(UserWarning, match="still here"):
        warnings.warn("still here", stacklevel=1)


def test_the_published_hash_is_demanded(weights, tmp_path, monkeypatch):
    with pytest.raises(BadFile, match=f"{hashlib.sha256(weights.read_bytes()).hexdigest()}, not {INCEPTION.sha256}"):
        inception(weights=str(weights))
    monkeypatch.setenv("CMTOOL_ASSETS", str(tmp_path))
    with pytest.raises(MissingAsset, match="95,607,719 bytes, sha256 f58cb9b6") as caught:
        inception()
    assert INCEPTION.url in (caught.value.hint or "") and str(tmp_path) in (caught.value.hint or "")
