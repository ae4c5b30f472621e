"""Optimisers by name against their formulas, and learning rates against theirs."""

import math

import pytest
import torch
from torch import nn

from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.options.lr_schedule import LR_SCHEDULES, learning_rate
from cmtool.training.optimizers import build_optimizer

FORMULAS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}


def stepped(make, steps: int = 20) -> torch.Tensor:
    """A weight of five after some steps down a quadratic bowl with noise."""
    weight = nn.Parameter(torch.linspace(-1, 1, 5))
    noise, steps_of = torch.Generator().manual_seed(0), make([weight])
    for _ in range(steps):
        weight.grad = weight.detach() + 0.1 * torch.randn(5, generator=noise)
        steps_of.step()
    return weight.detach()


@pytest.mark.parametrize("name", registry.names("optimizers"))
@pytest.mark.parametrize(
    "options", [{}, {"betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1}], ids=["plain", "set"]
)
def test_optimiser_is_the_textbook_one_with_its_options(name, options):
    ours = stepped(lambda weights: build_optimizer({"name": name, **options}, weights, 0.05))
    theirs = stepped(lambda weights: FORMULAS[name](weights, lr=0.05, foreach=False, **options))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)
    assert (ours - stepped(lambda weights: torch.optim.SGD(weights, lr=0.05))).abs().max() > 1e-3


def test_first_steps_have_closed_forms():
    """Adam begins with ``-lr sign(g)``; RAdam's variance is not trusted yet, so it begins with ``-lr g``."""
    start = torch.linspace(-1, 1, 5)
    g = start + 0.1 * torch.randn(5, generator=torch.Generator().manual_seed(0))
    adam = stepped(lambda weights: build_optimizer({"name": "adam"}, weights, 0.01), steps=1)
    radam = stepped(lambda weights: build_optimizer({"name": "radam"}, weights, 0.01), steps=1)
    assert torch.allclose(adam, start - 0.01 * g.sign(), atol=1e-6)
    assert torch.allclose(radam, start - 0.01 * g, atol=1e-6)


def test_without_a_name_it_is_adam():
    assert type(build_optimizer({}, [nn.Parameter(torch.ones(1))], 0.1)) is torch.optim.Adam


@pytest.mark.parametrize(
    "spec",
    [
        {"betas": 0.9},
        {"betas": [0.9]},
        {"eps": -1},
        {"momentum": 0.9},
        {"foreach": True},
        {"name": "adamw", "betas": [0.9, "x"]},
        {"name": "radam", "weight_decay": "much"},
    ],
    ids=str,
)
def test_what_it_does_not_accept_is_said_in_one_sentence(spec):
    with pytest.raises(UsageError, match=f"optimizer '{spec.get('name', 'adam')}'"):
        build_optimizer(spec, [nn.Parameter(torch.ones(1))], 0.1)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="unknown optimizer 'adm'") as caught:
        build_optimizer({"name": "adm"}, [nn.Parameter(torch.ones(1))], 0.1)
    assert "adam" in caught.value.hint


@pytest.mark.parametrize("decay", LR_SCHEDULES)
def test_rate_grows_linearly_through_the_warm_up(decay):
    rates = [learning_rate(0.2, images, 10_000, 1000, decay) for images in (0, 99, 499, 999, 1000)]
    assert rates == pytest.approx([0.2 / 1000, 0.02, 0.1, 0.2, 0.2], rel=1e-12)
    assert learning_rate(0.2, 0, 10_000, 0, decay) == pytest.approx(0.2), "no warm-up begins with the whole rate"


@pytest.mark.parametrize(
    ("decay", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0]),
        ("cosine", [1, 0.5 + math.sqrt(2) / 4, 0.5, 0]),
    ],
)
def test_rate_falls_over_the_rest_of_the_run(decay, factors):
    """At a quarter, a half and all of the 8000 images after a warm-up of 1000; ``total - warmup`` is the rest."""
    rates = [learning_rate(0.2, images, 9000, 1000, decay) for images in (1000, 3000, 5000, 9000)]
    assert rates == pytest.approx([0.2 * factor for factor in factors], abs=1e-15)
    assert learning_rate(0.2, 99_000, 9000, 1000, decay) == pytest.approx(0.2 * factors[-1], abs=1e-15)


def test_rate_of_the_inverse_square_root_halves_when_the_run_is_four_times_as_long():
    rates = [learning_rate(0.2, images, 10**6, 1000, "sqrt") for images in (1000, 4000, 16_000)]
    assert rates == pytest.approx([0.2, 0.1, 0.05], rel=1e-12)


def test_rate_of_the_inverse_square_root_may_be_held_first():
    rates = [learning_rate(0.2, images, 10**6, 1000, "sqrt", 4000) for images in (499, 1000, 4000, 16_000)]
    assert rates == pytest.approx([0.1, 0.2, 0.2, 0.1], rel=1e-12)


def test_a_hold_that_ends_within_the_warm_up_counts_from_there():
    assert learning_rate(0.2, 799, 10**6, 1000, "sqrt", 400) == pytest.approx(
        0.2 * 0.8 * math.sqrt(400 / 799), rel=1e-12
    )
