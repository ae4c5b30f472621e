import dataclasses
import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cmtool.errors import BadFile, MissingAsset, UsageError
from cmtool.features import inception as module
from cmtool.features.inception import NETWORKS, PORT, TORCHSCRIPT, inception
from cmtool.features.inception_net import InceptionNet
from cmtool.features.resizing import resize_tensorflow
from cmtool.options import registry


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
    monkeypatch.setitem(NETWORKS, "torchscript", dataclasses.replace(TORCHSCRIPT, sha256=sha256))
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
    got = inception(weights=trusted, mode="legacy_pytorch", network="torchscript")(images)
    torch.testing.assert_close(got, (bilinear.flatten(1)[:, :2048] - 128) / 128, rtol=0, atol=1e-6)
    inside = nn.functional.interpolate(images.float(), [299, 299], mode="bilinear", align_corners=True)
    got = inception(weights=trusted, mode="legacy_tensorflow")(images)
    torch.testing.assert_close(got, inside.flatten(1)[:, :2048], rtol=0, atol=1e-4)


def test_modes_have_fingerprints_of_their_own(trusted):
    assert len({inception(weights=trusted, mode=mode, network="torchscript").fingerprint for mode in module.MODES}) == 3
    with pytest.raises(
        UsageError, match="unknown value of option 'mode' of feature extractor 'inception' 'claen'"
    ) as caught:
        registry.build("features", {"name": "inception", "weights": trusted, "mode": "claen"})
    assert caught.value.hint == "did you mean 'clean'?"


def test_grey_images_count_as_colour_and_batches_do_not_matter(trusted, images):
    features = inception(weights=trusted)
    grey = images[:, :1]
    assert torch.equal(features(grey), features(grey.repeat(1, 3, 1, 1)))
    assert torch.equal(features(images), torch.cat([features(image[None]) for image in images]))


def test_warnings_are_heard_again_afterwards(trusted, images):
    inception(weights=trusted, mode="legacy_pytorch", network="torchscript")(images)
    with pytest.warns(UserWarning, match="still here"):
        warnings.warn("still here", stacklevel=1)


def test_the_published_hash_is_demanded(weights, tmp_path, monkeypatch):
    with pytest.raises(BadFile, match=f"{hashlib.sha256(weights.read_bytes()).hexdigest()}, not {TORCHSCRIPT.sha256}"):
        inception(weights=str(weights))
    monkeypatch.setenv("CMTOOL_ASSETS", str(tmp_path))
    with pytest.raises(MissingAsset, match="95,607,719 bytes, sha256 f58cb9b6") as caught:
        inception()
    assert TORCHSCRIPT.url in str(caught.value.hint) and str(tmp_path) in str(caught.value.hint)


def lively(net, seed=0):
    """Weights under which activations neither fade nor explode."""
    generator = torch.Generator().manual_seed(seed)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data.normal_(0, (2 / part.weight[0].numel()) ** 0.5, generator=generator)
        if isinstance(part, nn.BatchNorm2d):
            part.bias.data.normal_(0, 0.1, generator=generator)
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.8, 1.2, generator=generator)
    return net.eval()


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Random weights in a file of the right shape."""
    torch.manual_seed(0)
    net = lively(InceptionNet())
    path = tmp_path_factory.mktemp("port") / "port.pth"
    torch.save(net.state_dict(), path)
    return path, net


@pytest.fixture
def ported(port, monkeypatch):
    """The random file passes for the published one."""
    sha256 = hashlib.sha256(port[0].read_bytes()).hexdigest()
    monkeypatch.setitem(NETWORKS, "pth", dataclasses.replace(PORT, sha256=sha256))
    return str(port[0])


def test_the_plain_network_is_clean_fids_port_to_the_last_digits(port, ported, images, monkeypatch):
    """clean-fid builds its network out of torchvision's, whose names and sums are not ours."""
    from cleanfid import inception_pytorch

    monkeypatch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: port[1].state_dict())
    monkeypatch.setattr(inception_pytorch, "_inception_v3", without_weights(inception_pytorch._inception_v3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = inception_pytorch.InceptionV3([3], resize_input=False).eval()
    x = nn.functional.interpolate(images.float(), [299, 299], mode="bilinear", align_corners=False)
    wanted = theirs(x.clamp(0, 255) / 255)[0][:, :, 0, 0]
    torch.testing.assert_close(inception(weights=ported, mode="legacy_pytorch")(images), wanted, rtol=1e-5, atol=1e-6)


def without_weights(build):
    def plain(*args, **kwargs):
        kwargs.pop("pretrained", None)
        return build(*args, **{"init_weights": False, "weights": None, **kwargs})

    return plain


def test_probabilities_leave_out_the_bias_and_spatial_features_are_a_layer_of_17(port, ported, images):
    features, net = inception(weights=ported, mode="legacy_tensorflow"), port[1]
    assert features.further == ("probabilities", "spatial")
    caught = []
    hook = net.Mixed_6d.get_submodule("branch1x1").register_forward_hook(lambda _, __, y: caught.append(y))
    with torch.inference_mode():
        net((resize_tensorflow(images.float()) - 128) / 128)
    hook.remove()
    look = features.look(images)
    rows = caught[0].permute(0, 2, 3, 1)[..., :7].reshape(3, 17 * 17 * 7)
    torch.testing.assert_close(look["spatial"], rows, rtol=1e-5, atol=1e-6)
    logits = look["features"].double() @ net.fc.weight.double().T
    torch.testing.assert_close(look["probabilities"].double(), logits.softmax(1), rtol=1e-5, atol=1e-9)


def test_tensorflow_resizes_between_upper_left_corners():
    x = torch.rand(1, 2, 5, 7)
    for side in (13, 3):
        places = [np.arange(side) * size / side for size in (5, 7)]
        lower = [np.floor(place).astype(int) for place in places]
        upper = [np.minimum(low + 1, size - 1) for low, size in zip(lower, (5, 7), strict=True)]
        r, c = (torch.from_numpy(place - low).float() for place, low in zip(places, lower, strict=True))
        top = x[:, :, lower[0]][..., lower[1]] * (1 - c) + x[:, :, lower[0]][..., upper[1]] * c
        bottom = x[:, :, upper[0]][..., lower[1]] * (1 - c) + x[:, :, upper[0]][..., upper[1]] * c
        wanted = top * (1 - r[:, None]) + bottom * r[:, None]
        torch.testing.assert_close(resize_tensorflow(x, side), wanted, rtol=1e-5, atol=1e-6)


def test_the_port_under_either_name_and_no_other_file(ported, tmp_path, monkeypatch, images):
    monkeypatch.setenv("CMTOOL_ASSETS", str(tmp_path))
    (tmp_path / PORT.also[0]).write_bytes(Path(ported).read_bytes())
    by_name, by_path = inception(mode="clean", network="pth"), inception(weights=ported)
    assert by_name.fingerprint == by_path.fingerprint and by_path.fingerprint.endswith("clean")
    assert torch.equal(by_name(images[:1]), by_path(images[:1]))
    (tmp_path / PORT.also[0]).write_bytes(b"something else")
    with pytest.raises(BadFile, match="is not the published pt_inception"):
        inception(network="pth")
