"""LPIPS on random weights: against the package that defines it, torchvision's network, and by hand."""

import hashlib
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from cmtool.cli import run
from cmtool.errors import BadFile, MissingAsset, UsageError
from cmtool.objectives import lpips as ours
from cmtool.objectives.consistency_2023 import cd, ct
from cmtool.objectives.distances import metric_called
from cmtool.objectives.lpips import BLOCKS, LPIPS

WIDTHS = (64, 128, 256, 512, 512)


@pytest.fixture(scope="module")
def weights():
    """A trunk and linear weights as the two files have them, random, with features that stay alive."""
    draw, trunk, wide = torch.Generator().manual_seed(0), {}, 3
    for width, block in zip(WIDTHS, BLOCKS, strict=True):
        for i in block:
            trunk[f"features.{i}.weight"] = torch.randn(width, wide, 3, 3, generator=draw) * (2 / (9 * wide)) ** 0.5
            trunk[f"features.{i}.bias"] = 0.1 * torch.randn(width, generator=draw)
            wide = width
    linear = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1, generator=draw) for i, w in enumerate(WIDTHS)}
    return trunk, linear


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 2, 3, 48, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def files(weights, tmp_path, monkeypatch):
    """Both files where cmtool looks, with hashes of their own."""
    monkeypatch.setenv("CMTOOL_ASSETS", str(tmp_path))
    for name, tensors in zip(("VGG16", "LINEAR"), weights, strict=True):
        asset = getattr(ours, name)
        torch.save(tensors, tmp_path / asset.filename)
        sha = hashlib.sha256((tmp_path / asset.filename).read_bytes()).hexdigest()
        monkeypatch.setattr(ours, name, replace(asset, sha256=sha))
    return tmp_path


def test_the_package_says_the_same_to_float32(weights, images):
    package = pytest.importorskip("lpips", reason="the package that defines LPIPS is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision in a way of the past
        theirs = package.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False).eval()
    trunk, linear = weights
    own = {key: f"features.{'.'.join(key.split('.')[-2:])}" for key in theirs.net.state_dict()}
    theirs.net.load_state_dict({key: trunk[name] for key, name in own.items()})
    theirs.load_state_dict(linear, strict=False)
    a = images[0].clone().requires_grad_()
    b = a.detach().clone().requires_grad_()
    expected, found = theirs(a, images[1]).flatten(), LPIPS(trunk, linear, "max", resize=False)(b, images[1])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    slopes = [torch.autograd.grad(value.sum(), x)[0] for value, x in ((expected, a), (found, b))]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-3, atol=1e-5 * float(slopes[0].abs().max()))


@pytest.mark.parametrize(("pool", "layer"), [("max", nn.MaxPool2d(2)), ("average", nn.AvgPool2d(2))])
def test_features_are_those_of_torchvisions_network(pool, layer, weights, images):
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.vgg16(weights=None).features.eval()
    network.load_state_dict({key.removeprefix("features."): value for key, value in weights[0].items()})
    h = (images[0] / 2 + 0.5 - torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).reshape(3, 1, 1)
    found = LPIPS(*weights, pool, resize=False).features(images[0])
    for i, one in enumerate(network[:30]):
        h = layer(h) if isinstance(one, nn.MaxPool2d) else one(h)
        if i in (3, 8, 15, 22, 29):
            torch.testing.assert_close(next(found), nn.functional.normalize(h, dim=1, eps=1e-10), rtol=1e-3, atol=1e-5)
    assert next(found, None) is None


def test_a_distance_is_zero_for_the_same_image_positive_for_another_and_each_images_own(weights, images):
    distance = LPIPS(*weights, "average", resize=False)
    a, b = images
    both = distance(a, b)
    assert distance(a, a).tolist() == [0.0, 0.0]
    assert (both > 0.01).all()
    torch.testing.assert_close(torch.cat([distance(a[:1], b[:1]), distance(a[1:], b[1:])]), both, rtol=1e-5, atol=0)
    torch.testing.assert_close(distance(b, a), both, rtol=1e-6, atol=0)


def test_small_images_are_enlarged_to_224_and_large_ones_left_alone(weights):
    seen = []
    distance = LPIPS(*weights, "average", resize=True)
    distance.pool = lambda h, k: seen.append(tuple(h.shape[2:])) or h[..., :16, :16]
    for width in (8, 255, 256):
        list(distance.features(torch.zeros(1, 3, width, width)))
    assert seen[::4] == [(224, 224), (224, 224), (256, 256)]


def test_grey_is_colour_and_other_data_are_refused(weights, images):
    distance = LPIPS(*weights, "max", resize=False)
    a, b = images[:, :, :1]
    torch.testing.assert_close(distance(a, b), distance(a.repeat(1, 3, 1, 1), b.repeat(1, 3, 1, 1)), rtol=1e-6, atol=0)
    with pytest.raises(UsageError, match="not data of shape 2"):
        distance(torch.zeros(4, 2), torch.zeros(4, 2))
    with pytest.raises(UsageError, match="16 pixels"):
        distance(a[..., :8, :8], b[..., :8, :8])


def test_where_no_feature_is_alive_the_gradient_is_zero_and_not_a_nan(weights):
    trunk = {key: torch.zeros_like(value) for key, value in weights[0].items()}
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    (slope,) = torch.autograd.grad(LPIPS(trunk, weights[1], "max", resize=False)(x, x.detach() + 1).sum(), x)
    assert torch.equal(slope, torch.zeros_like(x))


def test_it_computes_in_float32_inside_of_autocast(weights, images):
    distance = LPIPS(*weights, "average", resize=False)
    expected = distance(*images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(distance(*images), expected)
    assert distance(*images.bfloat16()).dtype == torch.float32


def test_recipes_take_it_by_name_and_keep_it_out_of_their_state(files):
    for objective in (ct(metric="lpips"), cd(nn.Identity(), metric="lpips-max")):  # type: ignore[arg-type]
        assert isinstance(objective.metric, LPIPS)
        assert not [key for key in objective.state_dict() if key.startswith("metric")]
        assert not list(objective.metric.parameters())
        metric = objective.double().metric
        assert isinstance(metric, LPIPS) and metric.weight0.dtype == torch.float64  # it moves with the objective
    average, largest = metric_called("lpips"), metric_called("lpips-max")
    assert isinstance(average, LPIPS) and isinstance(largest, LPIPS)
    assert average.resize and average.pool is nn.functional.avg_pool2d
    assert not largest.resize and largest.pool is nn.functional.max_pool2d


def test_the_files_are_the_published_ones_or_none(files):
    path = files / ours.LINEAR.filename
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(BadFile, match=r"is not the published lpips-vgg-v0\.1\.pth"):
        metric_called("lpips")
    path.unlink()
    with pytest.raises(MissingAsset, match=r"lpips-vgg-v0\.1\.pth .* is in none of"):
        metric_called("lpips")


def test_without_the_files_training_ends_with_the_command_that_fetches_them(capsys, tmp_path):
    words = ["train-ct", "--data", "digits", "--set", "method=ct", "--set", "method.metric=lpips", "--run-dir"]
    assert run([*words, str(tmp_path / "run")]) == 69
    text = capsys.readouterr().err
    assert text.count("cmtool: error: ") == 1 and "Traceback" not in text
    assert "curl -L --create-dirs -o /" in text and "vgg16-397923af.pth https://download.pytorch.org/" in text
    assert "pseudo-huber needs no file" in text


@pytest.mark.slow
def test_a_run_trains_with_it(files, tmp_path):
    words = ["train-ct", "-d", "digits", "-n", "8", "-b", "4", "--snapshots", "0", "--set", "method=ct"]
    assert run([*words, "--set", "method.metric=lpips", "--run-dir", str(tmp_path / "run")]) == 0
