"""The contracts of the plugins, as functions that a plugin's author calls from a test.

    from cmtool.testing import check_backbone
    from my_package import transformer

    def test_contract():
        check_backbone(transformer, width=32)

Each raises AssertionError with one sentence that says what the contract wants.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cmtool.backbones.mlp import mlp
from cmtool.core.denoiser import Denoiser, Preconditioning, like
from cmtool.core.grids import log_uniform
from cmtool.core.noise import Noise
from cmtool.core.process import VE
from cmtool.core.samplers import Counted, last
from cmtool.core.solvers import Solver, integrate
from cmtool.objectives.objective import Batch, Objective

__all__ = [
    "check_backbone",
    "check_dataset",
    "check_features",
    "check_objective",
    "check_operator",
    "check_sampler",
    "check_solver",
    "small_model",
]


def want(condition: Any, sentence: str) -> None:
    """AssertionError with the sentence, also under ``python -O``."""
    if not condition:
        raise AssertionError(sentence)


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether two tensors of one shape differ by at most ``tolerance`` times the largest number in them."""
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-30))


def distinct(rows: Tensor, tolerance: float) -> bool:
    """Whether any two rows are farther apart than ``tolerance`` times the length of the longest."""
    rows = rows.flatten(1).double()
    return bool(torch.pdist(rows).min() > tolerance * rows.norm(dim=1).max())


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Repeatable random numbers inside, and the caller's own generator as it was outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def wake(net: nn.Module) -> nn.Module:
    """Replace parameters that start as zeros, so that nothing is hidden behind a gate that is still closed."""
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return net


def small_model(shape: tuple[int, ...], classes: int = 0, sigma_min: float = 0.0, hints: int = 0) -> Denoiser:
    """A denoiser that is quick to call and is not the identity: a student or a teacher for tests."""
    return Denoiser(wake(mlp(shape, classes, width=16, depth=1, augment=hints)), Preconditioning(sigma_min=sigma_min))


@seeded()
def check_backbone(
    factory: Callable[..., nn.Module], shape: tuple[int, ...] = (3, 16, 16), classes: int = 10, **options: Any
) -> None:
    """``factory(shape, classes, **options)`` is a network ``(x [B, *shape], c_noise [B], labels [B] or None) -> x``.

    The gradient reaches every parameter, -1 and None mean "no class", each class and level has its own output, rows do
    not see each other, the weights fit a second network made the same way, evaluation is repeatable, and
    ``torch.func.jvp`` in (x, c_noise) equals a central difference in float64. The jvp runs with torch's plain attention
    kernel: the fused ones have no forward derivative, and whoever differentiates turns them off.
    """
    net = wake(factory(shape, classes, **options)).eval()
    x, c_noise = torch.randn(4, *shape), torch.tensor([-1.5, -0.2, 0.6, 1.3])
    labels = torch.tensor([0, -1, classes - 1, 0]).clamp(max=classes - 1)  # all "no class" where there are none
    before, out = x.clone(), net(x, c_noise, labels)
    want(out.shape == x.shape, f"the output has the shape of the input, {list(x.shape)}, and not {list(out.shape)}")
    want(out.isfinite().all(), "the output is finite")
    want(torch.equal(x, before), "the input is left as it was")
    want(torch.equal(out, net(x, c_noise, labels)), "in eval mode the same input gives the same output, bit for bit")
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in net.named_parameters():
        want(parameter.grad is not None and parameter.grad.any(), f"the gradient reaches every parameter, also {name}")
    with torch.no_grad():
        _check_conditions(net, x, c_noise, classes)
        rows = zip(x.split(1), c_noise.split(1), labels.split(1), strict=True)
        want(close(torch.cat([net(*row) for row in rows]), out, 1e-5), "each row of a batch is what it is alone")
        twin = _twin(factory(shape, classes, **options).eval(), net)
        want(torch.equal(twin(x, c_noise, labels), out), "the options and the state_dict are all there is to a network")
        _check_jvp(copy.deepcopy(net).double(), x[:2].double(), c_noise[:2].double(), labels[:2])


def _check_conditions(net: nn.Module, x: Tensor, c_noise: Tensor, classes: int) -> None:
    nothing = torch.full((len(x),), -1)
    want(close(net(x, c_noise, nothing), net(x, c_noise, None), 1e-5), "labels of -1 and None both mean 'no class'")
    levels = net(x[:1].expand_as(x), c_noise, None)
    want(distinct(levels, 1e-5), "each level c_noise has an output of its own")
    if classes:
        every = torch.arange(-1, classes)
        outputs = net(x[:1].expand(len(every), *x.shape[1:]), c_noise[:1].expand(len(every)), every)
        want(distinct(outputs, 1e-5), "each class, and 'no class', has an output of its own")


def _twin(other: nn.Module, net: nn.Module) -> nn.Module:
    try:
        other.load_state_dict(net.state_dict(), strict=True)
    except RuntimeError as error:
        raise AssertionError(f"the weights fit a second network made with the same options: {error}") from error
    return other


def _check_jvp(net: nn.Module, x: Tensor, c_noise: Tensor, labels: Tensor, h: float = 1e-7) -> None:
    def call(x: Tensor, c_noise: Tensor) -> Tensor:
        return net(x, c_noise, labels)

    dx, dc = torch.randn_like(x), torch.randn_like(c_noise)
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own rules for forward derivatives use torch.jit
        try:
            slope = torch.func.jvp(call, (x, c_noise), (dx, dc))[1]
        except (NotImplementedError, RuntimeError) as error:
            raise AssertionError(f"torch.func.jvp works with respect to (x, c_noise): {error}") from error
        secant = (call(x + h * dx, c_noise + h * dc) - call(x - h * dx, c_noise - h * dc)) / (2 * h)
    want(close(slope, secant, 1e-6), "torch.func.jvp in (x, c_noise) equals the central difference in float64")


def check_dataset(dataset: Any) -> None:
    """``dataset[i] -> (image, label)``: a tensor uint8 [C, H, W], or float32 [D], and an index into ``.classes``.

    Reading is repeatable; ``.batch(indices)``, where there is one, equals the items; labels are None exactly where
    ``.classes`` is (); ``.notice`` says in one line whose the data are.
    """
    shape, classes, notice = dataset.shape, dataset.classes, dataset.notice
    want(len(dataset) > 0, "a data set has at least one item")
    want(isinstance(shape, tuple) and len(shape) in (1, 3), f"shape is (C, H, W) or (D,), and not {shape}")
    want(isinstance(classes, tuple) and all(isinstance(c, str) for c in classes), "classes is a tuple of names, or ()")
    want(len(set(classes)) == len(classes), "no two classes have one name")
    want(isinstance(notice, str) and len(notice.splitlines()) == 1, "notice is one line: whose data, what licence")
    indices = sorted({0, len(dataset) // 3, len(dataset) // 2, len(dataset) - 1}, reverse=True)
    for i in indices:
        _check_item(dataset[i], dataset[i], shape, classes, i)
    if hasattr(dataset, "batch"):
        found, numbers = dataset.batch(indices)
        images, labels = zip(*(dataset[i] for i in indices), strict=True)
        want(torch.equal(found, torch.stack(images)), "batch(indices) gives the images of the items, stacked")
        if classes:
            want(torch.equal(numbers, torch.tensor(labels)), "batch(indices) gives the labels of the items, int64 [B]")
        else:
            want(numbers is None, "batch(indices) gives None for labels where there are no classes")


def _check_item(item: Any, again: Any, shape: tuple[int, ...], classes: tuple[str, ...], i: int) -> None:
    image, label = item
    want(isinstance(image, Tensor), f"item {i} is a tensor, and not {type(image).__name__}")
    dtype, found = torch.uint8 if len(shape) == 3 else torch.float32, (image.dtype, tuple(image.shape))
    want(found == (dtype, shape), f"item {i} has dtype {dtype} and shape {shape}, and not {found}")
    want(image.isfinite().all(), f"item {i} is finite")
    want(torch.equal(image, again[0]) and label == again[1], f"item {i} is the same each time it is read")
    if classes:
        good = type(label) is int and 0 <= label < len(classes)
        want(good, f"label {i} is an int from 0 to {len(classes) - 1}, and not {label!r}")
    else:
        want(label is None, f"label {i} is None where there are no classes, and not {label!r}")


@seeded()
def check_features(features: Any, inputs: Tensor | None = None) -> None:
    """``features(uint8 [B, C, H, W]) -> float32 [B, dim]``, with ``.name``, ``.label``, ``.fingerprint`` and ``.dim``.

    Rows do not see each other, calls are repeatable, other images have other features. ``inputs`` replaces the random
    32x32 colour images that are tried otherwise.
    """
    for field in ("name", "label", "fingerprint"):
        value = getattr(features, field, None)
        want(isinstance(value, str) and value, f"features.{field} is a name, and not {value!r}")
    x = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8) if inputs is None else inputs
    with torch.no_grad():
        out, again, alone = features(x), features(x), torch.cat([features(row[None]) for row in x])
    want(out.dtype == torch.float32, f"features are float32, and not {out.dtype}")
    want(out.shape == (len(x), features.dim), f"features are [B, {features.dim}] as .dim says, not {list(out.shape)}")
    want(out.isfinite().all(), "features are finite")
    want(torch.equal(out, again), "the same images have the same features, bit for bit")
    want(close(alone, out, 1e-4), "the features of an image do not depend on the batch")
    want(distinct(out, 1e-5), "other images have other features")
    if inputs is None:
        want(features(x[:, :1]).shape == out.shape, "features take grey images [B, 1, H, W] as well")


@seeded()
def check_operator(factory: Callable[..., Any], **options: Any) -> None:
    """``factory(reference [B, C, H, W], **options)`` gives a linear map, its inverse and what of it is unknown.

    ``impose`` puts the known part of ``.reference`` back, which the task may have made of what it was given, changes
    nothing else, and twice is as good as once; ``pixels`` makes uint8 of images of any size.
    """
    given, x = torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 3, 16, 16)
    task = factory(given, **options)
    y = task.reference
    want(close(task.inverse(task.forward(x)), x, 1e-5), "inverse(forward(x)) is x")
    both = task.forward(2 * x - y)
    want(close(both, 2 * task.forward(x) - task.forward(y), 1e-5), "forward is linear")
    want(close(task.impose(y), y, 1e-5), "impose leaves the reference as it is")
    edited = task.impose(x)
    want(close(task.impose(edited), edited, 1e-5), "impose twice is impose once")
    expected = task.known_part(y) + x - task.known_part(x)
    want(close(edited, expected, 1e-5), "impose(x) is the known part of the reference and the unknown part of x")
    rounded = task.pixels(torch.cat([given, given], -1))
    want(rounded.dtype == torch.uint8 and rounded.shape == (2, 3, 16, 32), "pixels gives uint8 images of that size")
    want(task.start.shape == y.shape, "start is an image of the size of the reference")
    want(task.level is None or task.level > 0, "level is a noise level, or None for the model's highest")


def check_sampler(sampler: Any) -> None:
    """``sampler.down(process, times) -> Walk`` turns noise into data; ``.usual`` is a number of steps that will do.

    The data are N(0, 1/4) in 64 dimensions, the steps twice the usual of VE from 10 to 1/100: mean and deviation
    of what comes out are right, ``.evaluations`` is what it costs, and an image depends on its own seed alone.
    """
    process = VE(0.01, 10.0)
    walk = sampler.down(process, torch.linspace(1, 0, 2 * sampler.usual + 1, dtype=torch.float64))
    model = Counted(lambda x, sigma, labels=None: like(1 / (1 + 4 * sigma**2), x) * x)

    def ends(seeds: Sequence[int]) -> Tensor:
        noise = Noise(seeds)
        return last(walk(model, walk.begin(noise, (64,)), noise, None))

    x = ends(range(64))
    want(model.calls == walk.evaluations, f"the walk asks the model {walk.evaluations} times, not {model.calls}")
    want(abs(float(x.mean())) < 0.04, f"the mean is 0, not {float(x.mean()):.2g}")
    want(abs(float(x.std()) - 0.5) < 0.05, f"the standard deviation is 1/2, not {float(x.std()):.2g}")
    want(close(ends([7, 3]), x[[7, 3]], 1e-5), "an image depends on its own seed alone")


def check_solver(solver: Solver) -> None:
    """``solver(field, x, t, s)`` carries x from t to s; its error falls with the power ``.order`` of the step.

    The equation is the probability flow of Gaussian data, ``dx/dt = t x / (1 + t^2)``, whose solution is
    ``x sqrt((1 + s^2) / (1 + t^2))``, walked from 80 to 1/5 in 96 and in 192 steps even in ln t.
    ``.evaluations`` is how often a step calls the field; where it is None the solver chooses its own steps, and must
    come within 1/1000 of the solution in one call.
    """
    calls = 0

    def field(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return like(t / (1 + t**2), x) * x

    def error(steps: int) -> float:
        grid, x = log_uniform(steps + 1, 0.2, 80.0), torch.full((1, 1), 80.0, dtype=torch.float64)
        *_, end = integrate(field, x, grid, solver)
        return abs(float(end) - 80 * math.sqrt((1 + 0.2**2) / (1 + 80.0**2)))

    if solver.evaluations is None:
        want(error(1) < 1e-3, f"the solution is met to 1/1000, not {error(1):.1g}")
    else:
        coarse, fine = error(96), error(192)
        each = calls / 288
        want(each == solver.evaluations, f"a step calls the field {solver.evaluations} times, not {each:g}")
        slope = math.log2(coarse / fine)
        want(abs(slope - solver.order) < 0.25, f"the error falls with order {solver.order} as stated, not {slope:.2f}")

    x, t, s = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.7], [1.5, 0.9, 1.4]], dtype=torch.float64)
    x = x[:, None]
    alone = torch.cat([solver(field, x[i : i + 1], t[i], s[i]) for i in range(3)])
    want(close(solver(field, x, t, s), alone, 1e-12), "times [B] step each row between its own two times, up or down")


@seeded()
def check_objective(objective: Objective, shape: tuple[int, ...] = (3, 8, 8), classes: int = 0) -> None:
    """``objective.loss(model, batch, progress) -> [B]``: finite, differentiable, a pure function of what it is given.

    Neither the loss nor ``update`` touches the model's weights, no gradient enters networks that the objective owns but
    does not name in ``trained()``, and an image's loss does not depend on the others of its batch.
    """
    want(objective.kind in ("score", "consistency"), f"kind is 'score' or 'consistency', and not {objective.kind!r}")
    model = small_model(shape, classes, objective.sigma_min, objective.hints)
    model.preconditioning = objective.preconditioning or model.preconditioning
    u = torch.tensor([0.03, 0.2, 0.4, 0.6, 0.8, 0.97], dtype=torch.float64)
    labels = torch.arange(6) % classes if classes else None
    x, z = torch.rand(6, *shape) * 2 - 1, torch.randn(6, *shape)
    v = torch.randn(6, *shape) if objective.probes else None
    batch = Batch(x, z, u, labels, v=v, others=x if objective.others else None, classes=labels)
    before = copy.deepcopy(model.state_dict())
    objective.begin(model)

    first, loss, last = (objective.loss(model, batch, progress) for progress in (0.0, 0.5, 1.0))
    want(loss.shape == (6,), f"the loss has one number per image, [B], and not {list(loss.shape)}")
    want(torch.cat([first, loss, last]).isfinite().all(), "the loss is finite from progress 0 to 1")
    want(torch.equal(objective.loss(model, batch, 0.0), first), "the same weights, images and progress, the same loss")
    part = torch.cat([objective.loss(model, piece, 0.5) for piece in batch.split(4)])
    want(close(part, loss, 1e-4), "the loss of an image does not depend on its batch")
    want(loss.requires_grad, "the loss is differentiable in the weights of the model")
    loss.sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    want(gradient.any() and gradient.isfinite().all(), "the gradient of the loss is finite and not zero")
    own = {id(p) for p in objective.trained()}
    held = [p for p in objective.parameters() if id(p) not in own]
    want(all(p.grad is None for p in held), "no gradient enters the networks that the objective owns")
    objective.update(model, 0.5)
    for name, value in model.state_dict().items():
        want(torch.equal(value, before[name]), f"neither loss nor update changes the model, and {name} did change")
