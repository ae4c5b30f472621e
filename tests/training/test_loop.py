"""The loop: what a step does to the weights, what it leaves alone, and what it counts."""

import copy
from collections.abc import Iterator
from itertools import repeat

import pytest
import torch
from torch import Tensor, nn

from cmtool.core.denoiser import Denoise
from cmtool.objectives.objective import Batch, Objective
from cmtool.testing import small_model
from cmtool.training.ema import EMA
from cmtool.training.loop import LoopConfig, Report, train
from cmtool.training.optimizers import build_optimizer
from cmtool.training.state import State


class Squares(Objective):
    """``mean (D(x, 1) - z)^2``, and a record of when it was asked and told; ``poison`` makes the loss of a step NaN."""

    def __init__(self, poison: tuple[int, ...] = ()):
        super().__init__()
        self.poison, self.asked, self.told, self.calls = poison, [], [], 0

    def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
        self.asked.append(progress)
        self.calls += 1
        error = (model(batch.x, torch.ones(len(batch)), batch.labels) - batch.z).square().flatten(1).mean(1)
        return error * torch.nan if self.calls - 1 in self.poison else error

    def update(self, model: nn.Module, progress: float) -> None:
        self.told.append(progress)


def batch(n: int = 12, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x, z = (torch.randn(n, 3, generator=generator) for _ in "xz")
    return Batch(x, z, torch.rand(n, generator=generator, dtype=torch.float64))


def state(objective: Objective | None = None, make: str = "sgd", images: int = 0) -> State:
    torch.manual_seed(0)
    model = small_model((3,))
    if make == "sgd":
        steps = torch.optim.SGD(model.parameters(), lr=1.0)
    else:
        steps = build_optimizer({"name": make}, model.parameters(), 1.0)
    return State(model, objective or Squares(), steps, EMA(model, half_life=100), images)


def weights(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def gradients(module: nn.Module) -> Tensor:
    """What the last step went by."""
    return torch.cat([p.grad.flatten() for p in module.parameters()])


def run(this: State, batches: Iterator[Batch], total: int, **options) -> list[Report]:
    return list(train(this, batches, total, lambda images: 0.1, LoopConfig(**options)))


def gradient_of(this: State, b: Batch) -> Tensor:
    loss = this.objective.loss(this.model, b, 0.0).mean()
    return nn.utils.parameters_to_vector(torch.autograd.grad(loss, list(this.model.parameters()))).detach()


def test_a_step_goes_down_the_gradient_of_the_mean_loss():
    this = state()
    before, slope = weights(this.model), gradient_of(this, batch())
    (report,) = run(this, repeat(batch()), 12)
    assert torch.allclose(weights(this.model), before - 0.1 * slope, rtol=0, atol=1e-7)
    assert report.gradient.item() == pytest.approx(slope.norm().item(), rel=1e-5)
    assert report.loss.item() == pytest.approx(this.objective.loss(state().model, batch(), 0.0).mean().item())
    assert (report.rate, report.images, report.finite) == (0.1, 12, True)


@pytest.mark.parametrize("micro", [1, 5, 12, 100])
def test_pieces_of_a_batch_give_its_gradient(micro):
    whole, pieces = state(), state()
    (expected,) = run(whole, repeat(batch()), 12)
    (found,) = run(pieces, repeat(batch()), 12, micro=micro)
    slope, other = gradients(whole.model), gradients(pieces.model)
    assert (other - slope).abs().max() < 1e-6 * slope.abs().max()
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    assert len(pieces.objective.asked) == -(-12 // micro)
    assert pieces.objective.told == [0.0]


def test_gradients_do_not_leak_into_the_next_step():
    this, second = state(), batch(seed=1)
    steps = train(this, iter([batch(), second]), 24, lambda images: 0.1)
    next(steps)
    before, slope = weights(this.model), gradient_of(this, second)
    next(steps)
    assert torch.allclose(weights(this.model), before - 0.1 * slope, rtol=0, atol=1e-7)


def test_clipping_bounds_the_step_and_reports_the_whole_gradient():
    this, free = state(), state()
    before = weights(this.model)
    (report,), (whole,) = run(this, repeat(batch()), 12, clip=0.01), run(free, repeat(batch()), 12)
    step, other = weights(this.model) - before, weights(free.model) - before
    assert report.gradient.item() == whole.gradient.item() > 0.1
    assert step.norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert torch.cosine_similarity(step, other, dim=0) > 1 - 1e-4
    (report,) = run(state(), repeat(batch()), 12, clip=100.0)
    assert report.gradient.item() == whole.gradient.item()


@pytest.mark.parametrize("make", ["adam", "adamw", "radam"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_changes_nothing_but_the_count(make, clip):
    this = state(Squares(poison=(2,)), make)
    steps = train(this, repeat(batch()), 48, lambda images: 0.01, LoopConfig(clip=clip))
    next(steps), next(steps)
    before = [weights(this.model), weights(this.average.model), copy.deepcopy(this.optimizer.state_dict()["state"])]
    report = next(steps)
    assert (report.finite, report.images, this.skipped, this.images) == (False, 36, 1, 36)
    assert report.loss.isnan() and report.gradient.isnan()
    assert torch.equal(weights(this.model), before[0])
    assert torch.equal(weights(this.average.model), before[1])
    for i, moments in this.optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, before[2][i][key]) for key, value in moments.items())
    assert this.objective.told == [0.0, 0.25], "the target does not follow a step that was not made"
    assert next(steps).finite
    assert (this.skipped, len(this.objective.told)) == (1, 3)
    assert not torch.equal(weights(this.model), before[0])


def test_one_bad_piece_of_a_batch_skips_the_whole_step():
    this = state(Squares(poison=(1,)))
    before = weights(this.model)
    (report,) = run(this, repeat(batch()), 12, micro=4)
    assert not report.finite
    assert torch.equal(weights(this.model), before)


def test_images_are_the_clock():
    asked = []

    def rate(images: int) -> float:
        asked.append(images)
        return 0.1 + images

    this = state(images=12)
    reports = list(train(this, repeat(batch()), 40, rate))
    assert [report.images for report in reports] == [24, 36, 48], "the last step may end beyond the total"
    assert asked == [12, 24, 36]
    assert [report.rate for report in reports] == [12.1, 24.1, 36.1]
    assert this.objective.asked == this.objective.told == [12 / 40, 24 / 40, 36 / 40]
    assert this.images == 48
    assert run(this, repeat(batch()), 40) == []


def test_the_learning_rate_reaches_every_group_of_the_optimiser():
    this = state()
    first, *rest = this.model.parameters()
    this.optimizer = torch.optim.SGD([{"params": [first]}, {"params": rest, "lr": 7.0}], lr=1.0)
    before, slope = weights(this.model), gradient_of(this, batch())
    run(this, repeat(batch()), 12)
    assert torch.allclose(weights(this.model), before - 0.1 * slope, rtol=0, atol=1e-7)


def test_the_average_follows_after_each_step():
    this = state()
    this.average.half_life = 1e9  # only the ramp remains: 0.5^(12 / (0.05 images))
    expected = weights(this.average.model)
    for report in train(this, repeat(batch()), 36, lambda images: 0.1):
        beta = 0.5 ** (12 / (0.05 * report.images))
        expected = beta * expected + (1 - beta) * weights(this.model)
        assert torch.allclose(weights(this.average.model), expected, rtol=0, atol=1e-6)


class Coins(nn.Module):
    """Little to learn, but a record of the units that were dropped."""

    def __init__(self):
        super().__init__()
        self.weight, self.dropout, self.masks = nn.Parameter(torch.ones(3)), nn.Dropout(0.5), []

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        self.masks.append(self.dropout(torch.ones(len(x), 64)))
        return self.weight * x


def state_of(model: nn.Module, steps: torch.optim.Optimizer, images: int = 0) -> State:
    return State(model, Squares(), steps, EMA(model, half_life=100), images)


def masks(seed: int, images: int, total: int, before: int = 0, **options) -> list[Tensor]:
    model = Coins()
    torch.manual_seed(before)
    run(state_of(model, torch.optim.SGD(model.parameters()), images), repeat(batch()), total, seed=seed, **options)
    return model.masks


def test_dropout_is_a_function_of_seed_and_image_number():
    """So a run that is taken up again drops the units it would have dropped."""
    whole = masks(seed=3, images=0, total=48)
    assert all(torch.equal(a, b) for a, b in zip(masks(3, 24, 48, before=99), whole[2:], strict=True))
    assert len({mask.numpy().tobytes() for mask in whole + masks(seed=4, images=0, total=48)}) == 8
    pieces = masks(3, 0, 24, micro=4)
    assert len({mask.numpy().tobytes() for mask in pieces}) == 6, "pieces of a batch drop different units"
    looked, *threaded = masks(3, 0, 24, micro=4, threads=3)  # one image is tried first: does the model draw at all?
    assert len(looked) == 1
    assert all(torch.equal(a, b) for a, b in zip(threaded, pieces, strict=True))
    assert all((mask == 0).float().mean().item() == pytest.approx(0.5, abs=0.1) for mask in whole)


def test_training_drops_also_after_the_model_was_used_for_samples():
    model = Coins()
    for _ in train(state_of(model, torch.optim.SGD(model.parameters())), repeat(batch()), 36, lambda images: 0.1):
        model.eval()
    assert all((mask == 0).any() for mask in model.masks)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads):
    alone, together = state(make="adam"), state(make="adam")
    expected = run(alone, repeat(batch()), 60, micro=3, clip=1.0)
    found = run(together, repeat(batch()), 60, micro=3, clip=1.0, threads=threads)
    assert [r.loss.item() for r in found] == [r.loss.item() for r in expected]
    assert torch.equal(weights(together.model), weights(alone.model))
    assert torch.equal(weights(together.average.model), weights(alone.average.model))


def test_an_error_in_a_thread_arrives():
    class Broken(Squares):
        def loss(self, model: Denoise, batch: Batch, progress: float) -> Tensor:
            raise RuntimeError("a broken loss")

    with pytest.raises(RuntimeError, match="a broken loss"):
        run(state(Broken()), repeat(batch()), 12, micro=3, threads=2)


class Crossed(nn.Module):
    """Gradients that autograd leaves transposed and expanded in memory."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.shift = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        mixed = (self.weight.t().contiguous() @ x.t()).t() + self.shift.expand(len(x), 5)
        return mixed[:, :3] + self.shift.sum()


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_gradients_reach_a_fused_optimiser_in_the_layout_of_the_weights(clip):
    """Fused Adam walks both in memory order; a gradient laid out otherwise would move the wrong weights."""
    ours, theirs = Crossed(), Crossed()
    run(state_of(ours, build_optimizer({}, ours.parameters(), 1.0)), repeat(batch()), 60, clip=clip)
    plain = torch.optim.Adam(theirs.parameters(), lr=0.1, foreach=False)
    for _ in range(5):
        plain.zero_grad()
        Squares().loss(theirs, batch(), 0.0).mean().backward()
        if clip:
            nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        plain.step()
    assert torch.allclose(weights(ours), weights(theirs), rtol=0, atol=1e-5)


def test_every_seed_can_train():
    for seed in (0, 2**32, 2**63 - 1):
        assert len(run(state(), repeat(batch()), 12, seed=seed)) == 1


def test_frozen_weights_stay():
    this = state()
    frozen = next(this.model.parameters()).requires_grad_(False)
    before = frozen.clone()
    run(this, repeat(batch()), 24)
    assert torch.equal(frozen, before)


def test_lower_precision_is_the_callers_to_choose():
    seen = []

    def autocast():
        seen.append(True)
        return torch.autocast("cpu", dtype=torch.bfloat16)

    low, full = state(), state()
    run(low, repeat(batch()), 12, autocast=autocast, micro=6)
    run(full, repeat(batch()), 12)
    assert len(seen) == 2
    assert 1e-7 < (weights(low.model) - weights(full.model)).abs().max() < 1e-2
