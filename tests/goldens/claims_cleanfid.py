"""Group cleanfid: the distances and the resizing that FID and KID are defined by."""

import torch
from harness import Case, claim
from torch import Tensor

from cmtool.evaluation.frechet import Moments, frechet_distance
from cmtool.evaluation.kid import squared_mmd
from cmtool.features.resizing import resizer


@claim("fid_kid")
def distances(case: Case) -> None:
    first, second = case.inputs["feats1"], case.inputs["feats2"]
    assert (len(first), len(second)) == (case.spec["n1"], case.spec["n2"])
    assert first.shape[1] == second.shape[1] == case.spec["dim"]
    assert all(len(rows) == case.spec["size"] for rows in case.draws)
    a, b = moments(first), moments(second)
    case.check("mu1", a.mean)
    case.check("sigma1", a.covariance)
    case.check("fid", number(frechet_distance(a, b)))
    case.check("fid_self", number(frechet_distance(a, a)))
    few = case.spec["dim"] // 2
    case.check("fid_singular", number(frechet_distance(moments(first[:few]), moments(second[:few]))))
    subsets = case.spec["subsets"]
    total = sum(squared_mmd(second[case.tape.next()], first[case.tape.next()]) for _ in range(subsets))
    case.check("kid64", number(total / subsets))
    case.leave("kid", "the same in single precision")


@claim("resizer")
def resizing(case: Case) -> None:
    image, step = case.inputs["image"].permute(2, 0, 1)[None], case.spec["step"]
    assert tuple(image.shape[2:]) == tuple(case.spec["hw"])
    for mode in ("clean", "legacy_pytorch"):
        large = resizer(mode)(image)[0].permute(1, 2, 0)
        case.check(mode, large[::step, ::step])
        case.check(f"{mode}_crop", large[120:136, 120:136])
        case.check(f"{mode}_sum", large.double().sum())
    assert torch.equal(resizer("legacy_tensorflow")(image), image.float())
    for kind, *_ in case.spec["variants"]:
        case.leave(f"{kind}_", "resizers of clean-fid that none of its modes uses")


def moments(features: Tensor) -> Moments:
    seen = Moments()
    seen.update(features)
    return seen


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
