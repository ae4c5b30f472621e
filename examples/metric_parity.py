"""Our numbers beside those of clean-fid, torch-fidelity and pytorch-fid, on one network with random weights.

    python examples/metric_parity.py [IMAGES]

Two sets of IMAGES pictures go through the Inception network of each tool, which all read the same file of random
weights, and the features are compared. Then each tool's own metrics are compared with ours on one set of features.
Tools that are not installed are left out: pip install torch-fidelity pytorch-fid.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cmtool.evaluation.frechet import Moments, frechet_distance
from cmtool.evaluation.inception_score import InceptionScore
from cmtool.evaluation.kid import squared_mmd
from cmtool.evaluation.precision_recall import prdc
from cmtool.features.inception import PORT, Inception
from cmtool.features.inception_net import InceptionNet
from cmtool.features.resizing import resizer
from cmtool.options import registry

warnings.simplefilter("ignore")
Row = tuple[str, str, float, float]


def random_weights(folder: Path) -> tuple[InceptionNet, Path]:
    """A network whose activations neither fade nor explode, and its file under the published keys."""
    torch.manual_seed(0)
    net = InceptionNet().eval()
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=(2 / part.weight[0].numel()) ** 0.5)
    torch.save(net.state_dict(), folder / "random.pth")
    return net, folder / "random.pth"


def ours(net: InceptionNet, mode: str) -> Inception:
    return Inception(net, PORT, mode, torch.device("cpu"))


def clean_fid_features(path: Path) -> Callable[[Tensor], Tensor]:
    return ported(
        import_module("cleanfid.inception_pytorch"),
        path,
        resize_input=False,
        before=lambda x: resizer("legacy_pytorch")(x) / 255,
    )


def pytorch_fid_features(path: Path) -> Callable[[Tensor], Tensor]:
    return ported(import_module("pytorch_fid.inception"), path, resize_input=True, before=lambda x: x.float() / 255)


def ported(
    module: Any, path: Path, resize_input: bool, before: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    module.load_state_dict_from_url = lambda *_, **__: torch.load(path, weights_only=True)
    net = module.InceptionV3([3], resize_input=resize_input).eval()
    return torch.inference_mode()(lambda images: net(before(images))[0][:, :, 0, 0])


def torch_fidelity_features(path: Path) -> Callable[[Tensor], Tensor]:
    module: Any = import_module("torch_fidelity.feature_extractor_inceptionv3")
    net = module.FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path=str(path))
    return torch.inference_mode()(lambda images: net(images)[0])


TOOLS = {
    "clean-fid": ("cleanfid", "legacy_pytorch", clean_fid_features),
    "pytorch-fid": ("pytorch_fid", "legacy_pytorch", pytorch_fid_features),
    "torch-fidelity": ("torch_fidelity", "legacy_tensorflow", torch_fidelity_features),
}


def networks(net: InceptionNet, path: Path, images: Tensor) -> Iterator[str]:
    """How far the features of each tool's own network are from ours, beside the largest of them."""
    for tool, (package, mode, build) in TOOLS.items():
        if find_spec(package):
            wanted, got = build(path)(images), ours(net, mode)(images)
            yield f"| {tool} | {mode} | {float((got - wanted).abs().max() / wanted.abs().max()):.1e} |"


def metrics(a: Tensor, b: Tensor, probabilities: Tensor) -> Iterator[Row]:
    """Tool, metric, theirs and ours on the features ``a`` and ``b``."""
    one, two = moments(a), moments(b)
    fid, x, y = frechet_distance(one, two), a.double().numpy(), b.double().numpy()
    pairs = [(m.mean.numpy(), m.covariance.numpy()) for m in (one, two)]
    if find_spec("cleanfid"):
        clean: Any = import_module("cleanfid.fid")
        yield "clean-fid", "FID", clean.frechet_distance(*pairs[0], *pairs[1]), fid
        kid = clean.kernel_distance(x, y, num_subsets=1, max_subset_size=len(x))
        yield "clean-fid", "KID", kid, squared_mmd(a, b)
    if find_spec("pytorch_fid"):
        pytorch_fid: Any = import_module("pytorch_fid.fid_score")
        yield "pytorch-fid", "FID", pytorch_fid.calculate_frechet_distance(*pairs[0], *pairs[1]), fid
    if find_spec("torch_fidelity"):
        yield from torch_fidelity_metrics(a, b, probabilities, pairs, fid)


def torch_fidelity_metrics(a: Tensor, b: Tensor, probabilities: Tensor, pairs: list, fid: float) -> Iterator[Row]:
    names = ("metric_fid", "metric_isc", "metric_kid", "metric_prc")
    metric_fid, metric_isc, metric_kid, metric_prc = (import_module(f"torch_fidelity.{name}") for name in names)
    held = [{"mu": mean, "sigma": covariance} for mean, covariance in pairs]
    theirs = metric_fid.fid_statistics_to_metric(*held, False)["frechet_inception_distance"]
    yield "torch-fidelity", "FID", theirs, fid
    found = metric_isc.isc_features_to_metric(probabilities.log(), splits=1, shuffle=False)
    score = InceptionScore()
    score.update(probabilities)
    yield "torch-fidelity", "IS", found["inception_score_mean"], score.mean
    a, b = a.double(), b.double()
    found = metric_kid.kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=len(a), verbose=False)
    yield "torch-fidelity", "KID", found["kernel_inception_distance_mean"], squared_mmd(a, b)
    found = metric_prc.prc_features_to_metric(a, b, prc_neighborhood=3, prc_batch_size=64, verbose=False)
    shares = prdc(b, a)
    for name in ("precision", "recall"):
        yield "torch-fidelity", name, found[name], shares[name]


def moments(rows: Tensor) -> Moments:
    seen = Moments()
    seen.update(rows)
    return seen


def main(n: int) -> None:
    shapes = registry.build("datasets", "shapes", None)
    images = torch.stack([torch.as_tensor(np.asarray(shapes[i][0])) for i in range(2 * n)])
    with tempfile.TemporaryDirectory() as folder:
        net, path = random_weights(Path(folder))
        print("| network of | resizing | largest difference of features |\n|---|---|---:|")
        print("\n".join(networks(net, path, images[:4])))
        looks = [ours(net, "legacy_tensorflow").look(some) for some in images.split(4)]
    rows = torch.cat([look["features"] for look in looks])[:, : max(2, n // 3)]  # fewer features than images
    sharp = torch.cat([look["probabilities"] for look in looks])
    print("\n| metric of | | theirs | ours | difference |\n|---|---|---:|---:|---:|")
    for tool, name, theirs, mine in metrics(rows[:n], rows[n:], sharp):
        print(f"| {tool} | {name} | {theirs:.9g} | {mine:.9g} | {abs(theirs - mine) / max(abs(mine), 1e-12):.1e} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
