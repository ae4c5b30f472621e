"""From an objective and a network to what a run trains: conditions, preconditioning, inherited weights, averages."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cmtool.core.denoiser import TARGET_DIM, Denoiser, Preconditioning
from cmtool.errors import Hint, Setting, UsageError
from cmtool.objectives.objective import Objective, Requirements
from cmtool.options import registry
from cmtool.options.ema_spec import EMASpec
from cmtool.training.augment import Augment
from cmtool.training.ema import EMA, RULES
from cmtool.training.optimizers import build_optimizer
from cmtool.training.state import State

__all__ = ["add_conditions", "build_network", "build_state", "choose_preconditioning"]

Backbone = Mapping[str, Any]  # a spec: the name of a network, and its options


def add_conditions(backbone: Backbone, requirements: Requirements, augment: Augment | None) -> Backbone:
    """The network that takes augment labels, and the noise level that a step leads to, where the run has them.

    UsageError for one that cannot, and for one that takes other augment labels than those of ``augment``.
    """
    known = registry.options(registry.get("backbones", backbone["name"]))
    if requirements.target_sigma:
        if "target_dim" not in known:
            raise UsageError(
                f"the network '{backbone['name']}' does not take the noise level that a step leads to, and this method"
                " needs that",
                Hint("use a network with an option 'target_dim': {}", Setting("backbone", "unet")),
            )
        backbone = {**backbone, "target_dim": TARGET_DIM}
    if augment:
        if "augment_dim" not in known:
            raise UsageError(
                f"the network '{backbone['name']}' does not take augment labels, without which augmentation would leak"
                " into its samples",
                Hint("leave out {}, or use {}", Setting("augment"), Setting("backbone", "unet")),
            )
        if backbone.get("augment_dim", 0) not in (0, augment.dim):
            raise UsageError(
                Hint(
                    "the network takes {} augment labels, and {} gives {}",
                    str(backbone["augment_dim"]),
                    Setting("augment"),
                    str(augment.dim),
                ),
                Hint("leave out {}", Setting("augment")),
            )
        backbone = {**backbone, "augment_dim": augment.dim}
    return backbone


def choose_preconditioning(
    requirements: Requirements, sigma_data: float, parent: Preconditioning | None = None
) -> Preconditioning:
    """That of the parent, else the one that the objective requires, else EDM's; with the boundary of the objective."""
    boundary = requirements.sigma_min if requirements.kind == "consistency" else 0.0
    chosen = parent or requirements.preconditioning or Preconditioning(sigma_data)
    return replace(chosen, sigma_min=boundary, jumps=requirements.target_sigma)


def build_network(
    backbone: Backbone, shape: tuple[int, ...], num_classes: int, parent: Backbone, weights: Mapping[str, Tensor]
) -> nn.Module:
    """The network of ``backbone``; with ``weights`` those of a ``parent`` that may lack some of its conditions.

    What the parent lacks is learnt anew. RuntimeError for weights that do not fit.
    """
    net = registry.build("backbones", backbone, shape, num_classes)
    if not weights:
        return net
    own, state = net.state_dict(), dict(weights)
    if backbone != parent:
        with torch.device("meta"):
            known = registry.build("backbones", parent, shape, num_classes).state_dict().keys()
        state |= {key: value for key, value in own.items() if key not in known}
    net.load_state_dict(state)
    return net


def build_state(
    model: Denoiser, objective: Objective, optimizer: Mapping[str, Any], lr: float, averages: Sequence[EMASpec]
) -> State:
    """The state at the start of a run; the first of ``averages`` is the model that is kept, the others stand beside."""
    objective.begin(model)
    learner = build_optimizer(optimizer, [*model.parameters(), *objective.trained()], lr)
    first, *others = averages
    state = State(model, objective, learner, _average(model, first))
    state.others = {spec.name: _average(model, spec) for spec in others}
    return state


def _average(model: Denoiser, spec: EMASpec) -> EMA:
    return EMA(model, rule=RULES[spec.form](spec.value))
