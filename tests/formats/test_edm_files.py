"""Files of EDM, ECT and EDM2 made from networks of ours: the same weights, the right meaning, and nothing runs."""

import pickle
from dataclasses import replace

import pytest
import torch
from edm_nets import magnitudes, narrow_adm, network, song, text

import cmtool
from cmtool.backbones.songunet import songunet
from cmtool.core.denoiser import Preconditioning
from cmtool.errors import BadFile, UsageError
from cmtool.files.checkpoint import digest
from cmtool.files.model_files import format_of
from cmtool.files.safe_pickle.unpickler import ALLOWED


@pytest.fixture
def trap(tmp_path):
    """A program text that leaves a trace when it runs; that it did not is checked at the end."""
    yield f"import os; os.mkdir({str(tmp_path / 'ran')!r})"
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def written(tmp_path):
    def write(top, protocol=4):
        path = tmp_path / "net.pkl"
        path.write_bytes(text(top, protocol))
        return path

    return write


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_the_weights_are_those_of_the_file(written, trap, protocol):
    path = written(song(trap), protocol)
    assert format_of(path) == "edm"
    model = cmtool.load(path)
    ours = network(songunet, model_channels=8, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,)).state_dict()
    assert model.model.net.state_dict().keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in model.model.net.state_dict().items())
    assert not model.model.training


@pytest.mark.parametrize(
    ("kind", "attributes", "named", "ends"),
    [
        ("EDMPrecond", {"sigma_min": 0, "sigma_max": float("inf")}, Preconditioning.named("edm"), (0.002, 80)),
        ("VPPrecond", {}, Preconditioning.named("vp-999"), (0.002, 80)),
        ("VEPrecond", {"sigma_min": 0.02, "sigma_max": 100}, Preconditioning.named("ve-1"), (0.02, 80)),
        ("VEPrecond", {"sigma_min": 0.1, "sigma_max": 50}, Preconditioning.named("ve-1"), (0.1, 50)),
    ],
)
def test_the_class_around_says_what_is_predicted(written, trap, kind, attributes, named, ends):
    path = written(song(trap, kind, **attributes))
    model = cmtool.load(path)
    assert model.model.preconditioning == named
    header = model.header
    assert (header.kind, header.sigma_min, header.sigma_max, header.sigmas) == ("score", *ends, [])
    assert header.licence == "CC BY-NC-SA 4.0"
    assert header.sha256 == digest(path)
    assert header.parents == []


@pytest.mark.parametrize(
    ("kind", "more", "named", "changes"),
    [
        ("VPPrecond", {"beta_d": 9.5, "beta_min": 0.5}, "vp-999", {"beta_min": 0.5, "beta_max": 10.0}),
        ("VPPrecond", {"M": 500, "epsilon_t": 1e-3}, "vp-999", {"time_scale": 499.0}),
        (
            "iDDPMPrecond",
            {"C_1": 0.01, "C_2": 0.02, "M": 400},
            "iddpm",
            {"steps": 400, "cosine_shift": 0.02, "beta_limit": 0.99},
        ),
    ],
)
def test_the_process_is_that_of_the_file(written, trap, kind, more, named, changes):
    file = song(trap, kind, more=more) if kind == "VPPrecond" else narrow_adm(trap, **more)
    assert cmtool.load(written(file)).model.preconditioning == replace(Preconditioning.named(named), **changes)


@pytest.mark.parametrize(
    "more", [{"beta_d": -1}, {"M": 10**9}, {"M": 10.5}, {"beta_min": "x"}, {"beta_d": float("nan")}]
)
def test_a_process_that_is_none(written, trap, more):
    with pytest.raises(BadFile, match="describes a process that cannot be"):
        cmtool.load(written(song(trap, "VPPrecond", more=more)))


@torch.no_grad()
def test_balances_of_edm2_are_those_of_the_file(written, trap):
    """Of a block: ``((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)``, and what is louder than ``clip_act`` is cut."""
    more = {"res_balance": 0.4, "attn_balance": 0.2, "concat_balance": 0.6, "label_balance": 0.3, "clip_act": 0.5}
    usual, other, free = (cmtool.load(written(magnitudes(trap, **m))) for m in ({}, more, {"clip_act": None}))
    assert more.items() <= other.header.backbone.items()
    heard: list[float] = []
    for layer in other.model.net.dec.values():
        layer.register_forward_hook(lambda _, __, y: heard.append(float(y.abs().max())))
    x, sigma = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(1)
    assert not torch.allclose(other(x, sigma), usual(x, sigma))
    torch.testing.assert_close(free(x, sigma), usual(x, sigma))
    assert max(heard) == 0.5
    with pytest.raises(BadFile, match=r"option .res_balance. .* must be from 0 to 1"):
        cmtool.load(written(magnitudes(trap, res_balance=7)))


def test_ect_is_a_consistency_model(written, trap):
    model = cmtool.load(written(song(trap, "ECMPrecond", classes=3, sigma_min=0.004)))
    x, sigma = torch.randn(2, 3, 8, 8), torch.full((2,), 0.004)
    assert torch.equal(model(x, sigma, torch.tensor([0, 2])), x)
    assert (model.header.kind, model.header.sigma_min, model.header.num_classes) == ("consistency", 0.004, 3)
    assert model.header.sigmas == [0.821]


def test_ect_of_edm2_is_a_consistency_model_too(written, trap):
    """It has EDM2's class without the head of the loss, and its boundary is at 0."""
    tuned = cmtool.load(written(magnitudes(trap, uncertain=False, dropout=0.4, dropout_res=4)))
    assert (tuned.header.kind, tuned.header.method, tuned.header.sigmas) == ("consistency", "ect", [1.526])
    assert (tuned.header.sigma_min, tuned.model.preconditioning.sigma_min) == (0.002, 0.0)
    assert (tuned.header.backbone["dropout"], tuned.header.backbone["dropout_res"]) == (0.4, 4)
    other = cmtool.load(written(magnitudes(trap)))
    assert (other.header.kind, other.header.method, other.header.sigmas) == ("score", "edm2", [])
    x, sigma = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(1)
    assert torch.equal(tuned(x, sigma), other(x, sigma))
    torch.testing.assert_close(tuned(x, 1e-6 * sigma), x, atol=1e-4, rtol=0)


def test_a_network_that_also_predicts_its_variance(written, trap):
    model = cmtool.load(written(narrow_adm(trap)))
    assert model(torch.randn(1, 3, 8, 8), torch.ones(1)).shape == (1, 3, 8, 8)
    assert model.model.preconditioning == Preconditioning.named("iddpm")
    assert model.header.backbone["learn_variance"]


def test_half_weights_are_read_into_whole_ones(written, trap):
    model = cmtool.load(written(magnitudes(trap)))
    assert {p.dtype for p in model.model.parameters()} == {torch.float32}
    assert model.header.backbone["name"] == "edm2"


@pytest.mark.parametrize(
    ("said", "error", "sentence"),
    [
        (
            {"backbone": {"model_channels": 16}},
            UsageError,
            r"backbone.model_channels=16 contradicts .*net.pkl, whose is 8",
        ),
        ({"format": {"sigma_min": 90.0}}, UsageError, "there are no noise levels from 90.0 to 80.0"),
    ],
)
def test_what_contradicts_the_file(written, trap, said, error, sentence):
    with pytest.raises(error, match=sentence):
        cmtool.load(written(song(trap)), **said)


def test_what_may_be_said(written, trap):
    path = written(song(trap))
    model = cmtool.load(path, format={"sigma_min": 0.01}, backbone={"model_channels": 8, "dropout": 0.3})
    assert (model.header.sigma_min, model.header.backbone["dropout"]) == (0.01, 0.3)
    path = written(song(trap, "ECMPrecond", sigma_min=0.003))
    with pytest.raises(UsageError, match=r"format.sigma_min=0.01 contradicts"):
        cmtool.load(path, format={"sigma_min": 0.01})


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"model_channels": 10**9}, "describes a network that cannot be: model_channels=1000000000"),
        ({"num_blocks": 10**4}, "describes a network that cannot be: num_blocks=10000"),
        ({"num_blocks": [1]}, "cannot be used: option 'num_blocks' of network architecture 'songunet' must be"),
        ({"model_channels": -8}, "describes a network that cannot be: model_channels=-8"),
        ({"channel_mult": [1] * 40}, "describes a network that cannot be: channel_mult"),
        ({"model_channels": None}, "describes a network that cannot be: model_channels=None"),
        ({"model_channels": 16}, "does not fit its own network"),
        ({"img_resolution": 10**9}, "does not say what images it makes"),
        ({"img_channels": "3"}, "does not say what images it makes"),
        ({"img_resolution": 7}, "cannot be used: songunet with 2 levels"),
        ({"encoder_type": "x"}, "cannot be used: unknown value of option 'encoder_type' .* 'x'"),
        ({"channel_mult_emb": 8}, "does not fit its own network"),
        ({"beta_min": 0.2}, "has a network with beta_min=0.2"),
        ({"magic": 1}, "has a network with magic=1"),
        ({"resample_filter": [1, 3, 3, 1]}, "does not fit its own network: tensor '.*resample_filter'"),
    ],
)
def test_arguments_of_no_network(written, trap, more, sentence):
    with pytest.raises(BadFile, match=sentence):
        cmtool.load(written(song(trap, more=more)))


@pytest.mark.parametrize("attributes", [{"sigma_min": 0}, {"sigma_min": -1.0}, {"sigma_min": float("nan")}])
def test_a_boundary_that_is_none(written, trap, attributes):
    with pytest.raises(BadFile, match="has the impossible sigma_min"):
        cmtool.load(written(song(trap, "ECMPrecond", **attributes)))


def test_other_classes_and_other_objects(written, trap):
    with pytest.raises(BadFile, match="holds a 'PFGMPrecond', which is no network of EDM, ECT or EDM2"):
        cmtool.load(written(song(trap, "PFGMPrecond")))
    with pytest.raises(BadFile, match="it holds no network under 'ema'"):
        cmtool.load(written({"ema": None, "loss_fn": song(trap)}))
    with pytest.raises(BadFile, match=r"which is no part of a network"):
        cmtool.load(written({"ema": song(trap), "more": pickle.Pickler}))


def test_no_allowed_name_is_a_way_out():
    """All of them belong to torch's tensors, numpy's numbers, plain containers, or the records of this format."""
    homes = ("torch.", "torch_utils.persistence.", "numpy.", "collections.", "dnnlib.util.EasyDict", "pathlib.")
    assert {name for name in ALLOWED if not name.startswith(homes)} == {
        *("builtins.getattr", "builtins.set", "builtins.complex", "builtins.bytearray", "builtins.bytes"),
        *("_codecs.encode", "argparse.Namespace", "types.SimpleNamespace"),
    }
