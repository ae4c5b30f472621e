"""What a training method has to be."""

import copy

import torch

from cmtool.core.denoiser import TARGET_DIM
from cmtool.objectives.objective import Batch, Objective
from cmtool.testing.common import close, fix_seed, require, small_model

__all__ = ["check_objective"]


@fix_seed()
def check_objective(objective: Objective, shape: tuple[int, ...] = (3, 8, 8), classes: int = 0) -> None:
    """``objective.loss(model, batch, progress) -> [B]``: finite, differentiable, a pure function of what it is given.

    Neither the loss nor ``update`` touches the model's weights, no gradient enters networks that the objective owns but
    does not name in ``trained()``, and an image's loss does not depend on the others of its batch.
    """
    needs = objective.requirements
    require(needs.kind in ("score", "consistency"), f"kind is 'score' or 'consistency', and not {needs.kind!r}")
    model = small_model(shape, classes, needs.sigma_min, TARGET_DIM if needs.target_sigma else 0)
    model.preconditioning = needs.preconditioning or model.preconditioning
    u = torch.tensor([0.03, 0.2, 0.4, 0.6, 0.8, 0.97], dtype=torch.float64)
    labels = torch.arange(6) % classes if classes else None
    x, z = torch.rand(6, *shape) * 2 - 1, torch.randn(6, *shape)
    v = torch.randn(6, *shape) if needs.probes else None
    batch = Batch(x, z, u, labels, v=v, others=x if needs.others else None, classes=labels)
    before = copy.deepcopy(model.state_dict())
    objective.begin(model)

    first, loss, last = (objective.loss(model, batch, progress) for progress in (0.0, 0.5, 1.0))
    require(loss.shape == (6,), f"the loss has one number per image, [B], and not {list(loss.shape)}")
    require(torch.cat([first, loss, last]).isfinite().all(), "the loss is finite from progress 0 to 1")
    require(
        torch.equal(objective.loss(model, batch, 0.0), first), "the same weights, images and progress, the same loss"
    )
    part = torch.cat([objective.loss(model, part, 0.5) for part in batch.split(4)])
    require(close(part, loss, 1e-4), "the loss of an image does not depend on its batch")
    require(loss.requires_grad, "the loss is differentiable in the weights of the model")
    loss.sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    require(gradient.any() and gradient.isfinite().all(), "the gradient of the loss is finite and not zero")
    own = {id(p) for p in objective.trained()}
    held = [p for p in objective.parameters() if id(p) not in own]
    require(all(p.grad is None for p in held), "no gradient enters the networks that the objective owns")
    objective.update(model, 0.5)
    for name, value in model.state_dict().items():
        require(torch.equal(value, before[name]), f"neither loss nor update changes the model, and {name} did change")
