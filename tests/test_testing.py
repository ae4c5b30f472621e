"""Every contract notices who does not keep it, and says in a sentence what it wants."""

import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cmtool.backbones.mlp import MLP, mlp
from cmtool.core.editing import operators
from cmtool.core.solvers import RungeKutta, heun
from cmtool.evaluation.metric import Metric, Score
from cmtool.features import Features
from cmtool.objectives.denoising import Denoising
from cmtool.objectives.edm import edm
from cmtool.testing import (
    check_backbone,
    check_dataset,
    check_features,
    check_metric,
    check_objective,
    check_operator,
    check_solver,
    small_model,
)


class Wrong(MLP):
    """A perceptron with one fault."""

    def __init__(self, fault, shape, classes):
        super().__init__(shape, classes, hidden_dim=16, depth=1, dropout=0.0)
        self.fault = fault
        if fault == "idle":
            self.idle = nn.Linear(2, 2)
        if fault == "hidden":
            self.hidden = torch.randn(1)

    def forward(self, x, c_noise, labels=None, augment_labels=None, target=None):
        out = super().forward(x, c_noise, labels)
        match self.fault:
            case "shape":
                return out.flatten(1)
            case "batch":
                return out - out.mean(0)
            case "classes":
                return super().forward(x, c_noise, None)
            case "level":
                return super().forward(x, torch.zeros_like(c_noise), labels)
            case "none":
                return out if labels is None else 2 * out
            case "random":
                return F.dropout(out, 0.5)
            case "in place":
                x += 1
            case "hidden":
                return out * self.hidden
            case "detached":
                return out + (x - x.detach())
            case "opaque":
                return Opaque.apply(out)
        return out


class Opaque(torch.autograd.Function):
    """The identity, without a rule for forward derivatives."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("shape", "the output has the shape of the input"),
        ("batch", "each row of a batch is what it is alone"),
        ("classes", "each class, and 'no class', has an output of its own"),
        ("level", "each noise level c_noise has an output of its own"),
        ("none", "labels of -1 and None both mean 'no class'"),
        ("idle", "the gradient reaches every parameter, also idle"),
        ("random", "bit for bit"),
        ("in place", "the input is left as it was"),
        ("hidden", "the options and the state_dict are all there is"),
        ("detached", "jvp in \\(x, c_noise\\) equals the central difference"),
        ("opaque", "torch.func.jvp works"),
    ],
)
def test_a_backbone_with_a_fault_is_told_which(fault, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_backbone(lambda shape, classes: Wrong(fault, shape, classes))


def test_a_backbone_without_its_fault_passes():
    check_backbone(lambda shape, classes: Wrong(None, shape, classes))


class Data:
    """Two grey images; the keywords replace what is right."""

    def __init__(self, **fault):
        self.images = fault.get("images", torch.arange(32, dtype=torch.uint8).reshape(2, 1, 4, 4))
        self.shape, self.classes = fault.get("shape", (1, 4, 4)), fault.get("classes", ("a", "b"))
        self.notice, self.label = fault.get("notice", "ours, CC0"), fault.get("label", 1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.label


class Batched(Data):
    def batch(self, indices):
        return self.images[: len(indices)], torch.ones(len(indices), dtype=torch.long)


class Positioned(Data):
    """One that remembers a position: threads that read at once get each other's images."""

    thread_safe = True

    def __getitem__(self, index):
        self.position = index
        time.sleep(0.001)
        return super().__getitem__(self.position)


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        (Data(images=torch.zeros(0, 1, 4, 4, dtype=torch.uint8)), "at least one item"),
        (Data(images=torch.zeros(2, 1, 4, 4)), "item 1 has dtype torch.uint8"),
        (Data(images=np.zeros((2, 1, 4, 4), np.uint8)), "item 1 is a tensor, and not ndarray"),
        (Data(shape=(1, 4, 5)), "shape \\(1, 4, 5\\)"),
        (Data(shape=[1, 4, 4]), "shape is"),
        (Data(classes=["a", "b"]), "classes is a tuple"),
        (Data(classes=("a", "a")), "no two classes"),
        (Data(label=2), "an int from 0 to 1, and not 2"),
        (Data(label=torch.tensor(1)), "an int from 0 to 1"),
        (Data(classes=()), "label 1 is None where there are no classes"),
        (Data(notice=""), "notice is one line"),
        (Data(notice="two\nlines"), "notice is one line"),
        (Batched(), "batch\\(indices\\) gives the images"),
        (Positioned(), "threads that read at once"),
    ],
)
def test_a_data_set_with_a_fault_is_told_which(dataset, sentence):
    check_dataset(Data())
    with pytest.raises(AssertionError, match=sentence):
        check_dataset(dataset)


class Extractor(Features):
    name = label = fingerprint = "mean"
    dim = 2

    def __init__(self, fault=None):
        self.fault = fault

    def __call__(self, images):
        rows = images.float().flatten(1)
        rows = torch.stack([rows.mean(1), rows.std(1)], 1)
        match self.fault:
            case "batch":
                return rows - rows.mean(0)
            case "precision":
                return rows.double()
            case "constant":
                return torch.ones_like(rows)
            case "dim":
                return rows[:, :1]
            case "random":
                return rows + torch.rand_like(rows)
        return rows


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("batch", "do not depend on the batch"),
        ("precision", "features are float32"),
        ("constant", "other images have other features"),
        ("dim", "as .dim says"),
        ("random", "bit for bit"),
    ],
)
def test_features_with_a_fault_are_told_which(fault, sentence):
    check_features(Extractor())
    with pytest.raises(AssertionError, match=sentence):
        check_features(Extractor(fault))


@pytest.mark.parametrize(
    ("compute", "sentence"),
    [
        (lambda pair: iter([]), "one score at least"),
        (lambda pair: iter([Score("x", float("nan"))]), "is finite"),
        (lambda pair: iter([Score("x", 1.0), Score("x", 2.0)]), "a name of its own"),
        (lambda pair: iter([Score("x", float(torch.rand(())))]), "repeatable"),
    ],
)
def test_a_metric_with_a_fault_is_told_which(compute, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_metric(Metric(compute))


def skewed(reference):
    """colorize with a matrix that is not its own inverse's transpose."""
    good, q = operators.colorize(reference), torch.eye(3) + 0.1
    return operators.Operator(
        reference,
        lambda x: torch.einsum("bchw,ck->bkhw", x, q),
        lambda y: torch.einsum("bkhw,ck->bchw", y, q),
        good.unknown,
        good.start,
    )


def test_an_operator_with_a_wrong_inverse_is_told():
    with pytest.raises(AssertionError, match="inverse\\(forward\\(x\\)\\) is x"):
        check_operator(skewed)


@pytest.mark.parametrize(
    ("solver", "sentence"),
    [
        (RungeKutta(3, heun().a, heun().b), "order 3 as stated, not 2.0"),
        (RungeKutta(2, ((), (1.0,)), (0.4, 0.6)), "order 2 as stated, not 1.1"),
    ],
)
def test_a_solver_of_another_order_is_told(solver, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_solver(solver)


class Costly(RungeKutta):
    @property
    def nfe_per_step(self) -> int:
        return 1


def test_a_solver_that_miscounts_is_told():
    with pytest.raises(AssertionError, match="calls the field 1 times, not 2"):
        check_solver(Costly(2, heun().a, heun().b))


class Faulty(Denoising):
    def __init__(self, fault):
        right = edm()
        super().__init__(right.noise_levels, right.weight, right.requirements.preconditioning)
        self.fault, self.calls, self.own = fault, 0, small_model((3, 8, 8)).requires_grad_(fault == "leak")

    def loss(self, model, batch, progress):
        self.calls += 1
        loss = super().loss(model, batch, progress)
        match self.fault:
            case "mean":
                return loss.mean()
            case "memory":
                return loss * self.calls
            case "batch":
                return loss / loss.detach().mean()
            case "detached":
                return loss.detach()
            case "leak":
                return loss + super().loss(self.own, batch, progress)
            case "late":
                return loss / (1 - progress)
        return loss

    @torch.no_grad()
    def update(self, model, progress):
        if self.fault == "update":
            next(model.parameters()).zero_()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("mean", "one number per image"),
        ("memory", "the same weights, images and progress, the same loss"),
        ("batch", "does not depend on its batch"),
        ("detached", "the loss is differentiable"),
        ("leak", "no gradient enters the networks that the objective owns"),
        ("late", "finite from progress 0 to 1"),
        ("update", "neither loss nor update changes the model"),
    ],
)
def test_an_objective_with_a_fault_is_told_which(fault, sentence):
    check_objective(edm())
    with pytest.raises(AssertionError, match=sentence):
        check_objective(Faulty(fault))


def test_checks_leave_the_random_numbers_of_the_caller_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_backbone(mlp, (2,), 2)
    check_objective(edm())
    assert torch.equal(torch.rand(3), expected)
