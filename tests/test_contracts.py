"""Every registered plugin keeps its contract; one that is added is covered as this stands."""

import numpy as np
import pytest
import torch
from PIL import Image

from cmtool.errors import MissingAsset
from cmtool.options import registry
from cmtool.testing import (
    check_backbone,
    check_dataset,
    check_features,
    check_logger,
    check_metric,
    check_objective,
    check_operator,
    check_process,
    check_sampler,
    check_schedule,
    check_solver,
    small_model,
)


def built(group, name, *args, **given):
    """The plugin, or a skipped test where it needs a file that is not here."""
    try:
        return registry.build(group, name, *args, **given)
    except MissingAsset as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", registry.names("backbones"))
@pytest.mark.parametrize("classes", [0, 10])
def test_backbone(name, classes):
    check_backbone(registry.get("backbones", name), classes=classes)


@pytest.mark.parametrize("name", ["mlp", "unet"])
@pytest.mark.parametrize(
    ("option", "argument", "layer"),
    [("augment_dim", "augment_labels", "map_augment"), ("target_dim", "target", "map_target")],
)
def test_a_condition_changes_nothing_until_it_was_learnt(name, option, argument, layer):
    net = registry.build("backbones", {"name": name, option: 3}, (1, 8, 8), 0)
    x, c_noise, given = torch.randn(2, 1, 8, 8), torch.zeros(2), torch.randn(2, 3)
    for key, parameter in net.named_parameters():
        torch.nn.init.normal_(parameter, std=0.1) if layer not in key else None
    assert torch.equal(net(x, c_noise, **{argument: given}), net(x, c_noise))
    torch.nn.init.normal_(net.get_parameter(next(key for key, _ in net.named_parameters() if layer in key)))
    assert not torch.equal(net(x, c_noise, **{argument: given}), net(x, c_noise))
    assert torch.equal(net(x, c_noise, **{argument: 0 * given}), net(x, c_noise))


@pytest.mark.parametrize("name", sorted({*registry.names("datasets")} - {"folder"}))
def test_dataset(name):
    check_dataset(built("datasets", name, None))


def test_dataset_folder(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / label / f"{i}.png")
    dataset = registry.build("datasets", "folder", str(tmp_path))
    check_dataset(dataset)
    assert (len(dataset), dataset.classes) == (6, ("cat", "dog"))


@pytest.mark.parametrize("name", registry.names("features"))
def test_features(name):
    check_features(built("features", name), torch.randn(4, 2) if name == "points" else None)


@pytest.mark.parametrize("name", registry.names("metrics"))
def test_metric(name):
    check_metric(registry.build("metrics", name))


@pytest.mark.parametrize("name", sorted({*registry.names("loggers")} - {"wandb"}))  # tests/loggers/test_wandb.py
def test_logger(name, tmp_path):
    check_logger(registry.factory("loggers", name), tmp_path)


@pytest.mark.parametrize("name", registry.names("operators"))
def test_operator(name):
    factory = registry.get("operators", name)
    mask = {"mask": (torch.rand(1, 1, 16, 16) < 0.5).float()} if "mask" in registry.options(factory) else {}
    check_operator(factory, **mask)


@pytest.mark.parametrize("name", registry.names("solvers"))
def test_solver(name):
    check_solver(registry.build("solvers", name))


@pytest.mark.parametrize("name", registry.names("samplers"))
def test_sampler(name):
    check_sampler(registry.build("samplers", name))


@pytest.mark.parametrize("name", registry.names("schedules"))
def test_schedule(name):
    check_schedule(registry.get("schedules", name))


@pytest.mark.parametrize("scaling", ["own", "vp", "none"])
@pytest.mark.parametrize("name", registry.names("processes"))
def test_process(name, scaling):
    check_process(registry.get("processes", name), scaling=scaling)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("group", "name"), [(g, n) for g in ("train_score", "train_ct") for n in registry.names(g)])
def test_objective(group, name, classes):
    check_objective(registry.build(group, name), classes=classes)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("name", registry.names("distill"))
def test_distillation(name, classes):
    check_objective(registry.build("distill", name, small_model((3, 8, 8), classes)), classes=classes)
