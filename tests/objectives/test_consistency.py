"""The pairwise loss: its target, its boundary, its dropout, and that it is a function of what it is given."""

import pytest
import torch
from expectations import EPS
from torch import Tensor, nn

from cmtool.backbones.mlp import mlp
from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import UsageError
from cmtool.objectives.consistency import Consistency, along_noise, inverse_gap, pair_weight
from cmtool.objectives.consistency_2023 import cd, ct
from cmtool.objectives.distances import l2, l2_32
from cmtool.objectives.objective import Batch, Objective, Requirements
from cmtool.options import registry
from cmtool.testing import small_model

RECIPES = [(group, name) for group in ("train_score", "distill", "train_ct") for name in registry.names(group)]


def batch(n: int = 6, size: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x, z, v = (torch.randn(n, size, generator=generator) for _ in "xzv")
    return Batch(x, z, (torch.arange(n, dtype=torch.float64) + 0.5) / n, v=v, others=x)


def dropping(dropout: float = 0.5) -> Denoiser:
    """A network that drops half of its units, with no weight left at zero."""
    torch.manual_seed(0)
    net = mlp((3,), 0, width=32, depth=2, dropout=dropout)
    nn.init.normal_(net.leave.weight)
    return Denoiser(net, Preconditioning(sigma_min=EPS)).train()


def standing_still(u: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """Both levels the same: both passes see one and the same input."""
    return 0 * u + 2.0, 0 * u + 2.0


def scaled(factor: float) -> nn.Module:
    """A model ``x -> factor x`` that remembers the levels it was asked about."""

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor, self.asked = nn.Parameter(torch.tensor(factor)), []

        def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
            self.asked.append(sigma.tolist())
            return self.factor * x

    return Scale()


def test_the_loss_is_the_formula():
    """``w(t, r) d(f(x + t z, t), f(x + r z, r))`` with numbers."""
    b = batch()
    objective = Consistency(lambda u, p: (0 * u + 3.0, 0 * u + 1.0), along_noise, l2, inverse_gap)
    expected = (0.7 * (b.x + 3 * b.z) - 0.7 * (b.x + b.z)).square().mean(1) / 2
    assert torch.allclose(objective.loss(scaled(0.7), b, 0.0), expected, rtol=1e-5)


def test_at_and_below_the_boundary_the_target_is_the_noisy_image_itself():
    """There the network is asked about another level, where it has an answer, and the answer is not used."""
    b, r = batch(4), torch.tensor([0.0, EPS / 2, EPS, 0.5], dtype=torch.float64)
    objective = Consistency(
        lambda u, progress: (0 * u + 3.0, r), along_noise, l2, requirements=Requirements("consistency", EPS)
    )
    model = scaled(0.7)
    x_r = b.x + r[:, None].float() * b.z
    there = torch.cat([x_r[:3], 0.7 * x_r[3:]])
    expected = (0.7 * (b.x + 3 * b.z) - there).square().mean(1)
    assert torch.allclose(objective.loss(model, b, 0.0), expected, rtol=1e-5)
    assert model.asked == [[3.0] * 4, [1.0, 1.0, 1.0, 0.5]]


def test_only_the_upper_end_is_differentiated():
    """``d/da (a x_t - sg(a x_r))^2 = 2 (a x_t - a x_r) x_t``."""
    b, model = batch(), scaled(0.7)
    objective = Consistency(lambda u, progress: (0 * u + 3.0, 0 * u + 1.0), along_noise, l2)
    objective.loss(model, b, 0.0).sum().backward()
    x_t, x_r = b.x + 3 * b.z, b.x + b.z
    assert model.factor.grad.item() == pytest.approx((2 * 0.7 * (x_t - x_r) * x_t).mean(1).sum().item(), rel=1e-5)


def test_the_target_is_a_copy_that_follows_at_its_decay():
    model = scaled(1.0)
    objective = Consistency(standing_still, along_noise, l2, decay=lambda progress: 0.8 if progress < 0.5 else 0.5)
    objective.begin(model)
    followed = []
    for progress in (0.0, 0.25, 0.75):
        model.factor.data += 1.0
        objective.update(model, progress)
        followed.append(objective.target.factor.item())
    assert followed == pytest.approx([1.2, 0.8 * 1.2 + 0.2 * 3, 0.5 * (0.8 * 1.2 + 0.2 * 3) + 0.5 * 4], rel=1e-6)
    assert not any(p.requires_grad for p in objective.target.parameters())
    objective.loss(model, batch(2), 0.0)
    assert len(objective.target.asked) == 1, "the target answers at r"


def test_without_a_decay_the_model_is_its_own_target():
    model, objective = scaled(1.0), Consistency(standing_still, along_noise, l2)
    objective.begin(model)
    objective.update(model, 0.5)
    assert objective.target is None
    assert objective.loss(model, batch(), 0.0).tolist() == [0.0] * 6


@pytest.mark.parametrize("decay", [None, 0.9], ids=["model", "target"])
def test_both_passes_drop_the_same_units(decay):
    """At equal levels and weights the loss is then exactly zero; another mask would leave a difference of order one."""
    model = dropping()
    objective = Consistency(standing_still, along_noise, l2, decay=decay and (lambda progress: decay))
    objective.begin(model)
    for _ in range(3):
        assert objective.loss(model, batch(), 0.0).tolist() == [0.0] * 6
    x, sigma = batch().x, torch.tensor(2.0)
    assert (model(x, sigma) - model(x, sigma)).abs().max() > 0.1, "two calls of their own drop different units"


def test_the_next_loss_drops_other_units():
    """What is rewound for the second pass must not be rewound for the next step."""
    model, objective = dropping(), Consistency(lambda u, p: (0 * u + 3.0, 0 * u + EPS), along_noise, l2)
    torch.manual_seed(5)
    first, second = (objective.loss(model, batch(), 0.0) for _ in range(2))
    assert (first - second).abs().min() > 1e-3
    torch.manual_seed(5)
    assert torch.equal(objective.loss(model, batch(), 0.0), first)


def build(group: str, name: str) -> Objective:
    teacher = [small_model((3,))] if group == "distill" else []
    return registry.build(group, name, *teacher)


@pytest.mark.parametrize(("group", "name"), RECIPES)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_same_weights_images_and_progress_give_the_same_loss_bit_for_bit(group, name, dropout):
    torch.manual_seed(3)
    objective, model = build(group, name), dropping(dropout)
    objective.begin(model)
    losses = []
    for _ in range(2):
        torch.manual_seed(7)
        losses.append(objective.loss(model, batch(), 0.6))
        torch.randn(10), objective.loss(model, batch(3), 0.1)
    assert torch.equal(*losses)


@pytest.mark.parametrize(("group", "name"), RECIPES)
def test_the_loss_of_an_image_is_its_own(group, name):
    objective, model = build(group, name), dropping(0.0)
    objective.begin(model)
    whole = objective.loss(model, batch(), 0.6)
    alone = torch.cat([objective.loss(model, piece, 0.6) for piece in batch().split(1)])
    assert (alone - whole).abs().max() < 1e-4 * whole.max()  # where t and r are close, float32 keeps no more


def test_consistency_training_follows_the_schedules_of_its_progress():
    objective = ct(s0=2, s1=150, decay=0.9)
    u = torch.tensor([0.999999], dtype=torch.float64)
    for progress, n in ((0.0, 2), (0.125, 54), (0.5, 107), (1.0, 151)):
        t, r = objective.pair(u, progress)
        assert r.item() == EPS
        assert t.item() == pytest.approx((0.002 ** (1 / 7) + (80 ** (1 / 7) - 0.002 ** (1 / 7)) / (n - 1)) ** 7)
    assert [objective.decay(p) for p in (0.0, 1.0)] == pytest.approx([0.9, 0.9 ** (2 / 151)], rel=1e-12)
    assert ct(convention="openai").decay(0.0) == pytest.approx(0.81)
    assert ct(decay=0.0).decay is None
    with pytest.raises(UsageError, match="unknown convention 'papr'"):
        ct(convention="papr")


def test_consistency_training_steps_along_the_noise_and_weighs_all_levels_alike():
    b, objective = batch(), ct(decay=0.0, sigma_max=4.0)
    expected = (0.7 * (b.x + 4 * b.z) - (b.x + EPS * b.z)).square().mean(1)
    assert torch.allclose(objective.loss(scaled(0.7), b, 0.0), expected, rtol=1e-5)


def test_distillation_steps_along_the_teacher_without_a_gradient():
    teacher = small_model((3,))
    objective, model = cd(teacher, steps=2, solver="euler", metric="l2", sigma_max=4.0), scaled(0.7)
    b = batch()
    x_t = b.x + 4 * b.z
    with torch.no_grad():
        x_r = x_t + (EPS - 4) * (x_t - teacher(x_t, torch.tensor(4.0))) / 4
    expected = (0.7 * x_t - x_r).square().mean(1)
    loss = objective.loss(model, b, 0.0)
    assert torch.allclose(loss, expected, rtol=1e-5)
    loss.sum().backward()
    assert all(p.grad is None for p in teacher.parameters())
    with pytest.raises(UsageError, match="must be at least 2, not 1"):
        registry.build("distill", {"name": "cd", "steps": 1}, teacher)


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("uniform", [1, 1]),
        ("snr", [4, 1 / 16]),
        ("snr+1", [5, 17 / 16]),
        ("karras", [4 + 1 / 0.36, 1 / 16 + 1 / 0.36]),
        ("truncated-snr", [4, 1]),
        ("gap", [4, 1 / 3]),
        ("root-gap", [2, 3**-0.5]),
        ("variance", [(0.25 + 0.36) / (0.25 * 0.36), 16.36 / (16 * 0.36)]),
    ],
)
def test_weights_of_a_pair_by_name(name, weight):
    t, r = torch.tensor([0.5, 4.0]).double(), torch.tensor([0.25, 1.0]).double()
    assert pair_weight(name, 0.6)(t, r).tolist() == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize("group", ["distill", "train_ct"])
def test_weight_and_metric_of_the_first_methods_by_name(group):
    teacher = [small_model((3, 32, 32))] if group == "distill" else []
    name = {"distill": "cd", "train_ct": "ct"}[group]
    objective = registry.build(group, {"name": name, "metric": "l2-32", "weight": "snr+1"}, *teacher)
    assert objective.metric is l2_32
    assert objective.weight(torch.tensor([2.0]), torch.tensor([1.0])).tolist() == [1.25]
    with pytest.raises(UsageError, match=r"unknown value of option 'weight' .* 'snr-1'"):
        registry.build(group, {"name": name, "weight": "snr-1"}, *teacher)
