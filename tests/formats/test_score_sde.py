"""What the format ``score_sde`` reads off the tensors, what it asks for, and what the model then computes."""

import math

import pytest
import torch
from safetensors.torch import save_file
from score_sde_files import SPEC, network, write

import cmtool
from cmtool.core.discrete_processes import ddpm_sigmas
from cmtool.core.process import VP, SubVP
from cmtool.errors import BadFile, UsageError
from cmtool.files.checkpoint import digest, load, save
from cmtool.files.model_files import format_of
from cmtool.formats import score_sde as module
from cmtool.formats.score_sde_networks import read_ncsnpp_shape
from cmtool.options import registry
from cmtool.options.hint_words import word_hint

SIDE = {"format": {"side": 16}}
X, SIGMA = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 20.0])


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "checkpoint_8.pth")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ncsnpp", {}),
        ("ncsnpp", {"resample_filter": (1.0, 1.0), "embedding_type": "positional"}),
        (
            "ncsnpp",
            {"channel_mult": (1, 1, 2), "attn_resolutions": (16, 4), "num_blocks": 2, "encoder_type": "standard"},
        ),
        ("ncsnpp", {"channel_mult": (2, 1), "encoder_type": "skip", "decoder_type": "skip"}),
        ("ncsnpp", {"encoder_type": "skip", "combine": "cat", "attn_resolutions": (16, 8)}),
        ("ncsnpp", {"channel_mult": (2,), "attn_resolutions": (), "encoder_type": "standard", "num_blocks": 3}),
        ("ncsnpp", {"encoder_type": "standard", "embedding_type": "positional", "noise_conditional": False}),
        (
            "ncsnpp",
            {"encoder_type": "skip", "decoder_type": "skip", "channel_mult": (1, 2, 2), "noise_conditional": False},
        ),
        ("ddpm", {"model_channels": 32}),
        ("ddpm", {"model_channels": 32, "channel_mult": (1, 1, 2), "conv_resample": False}),
        ("ddpm", {"model_channels": 32, "noise_conditional": False}),
        ("ddpm", {"model_channels": 32, "channel_mult": (2, 1, 2), "attn_resolutions": (8,), "num_blocks": 2}),
    ],
)
def test_the_tensors_tell_the_architecture(tmp_path, name, options):
    shown = read_ncsnpp_shape(tmp_path, network(name, **options).state_dict())
    usual = {"embedding_type": "fourier", "encoder_type": "residual", "decoder_type": "standard"}
    usual = usual if name == "ncsnpp" else {}
    found = {key: tuple(v) if isinstance(v, list) else v for key, v in shown.backbone.items()}
    found["attn_resolutions"] = tuple(shown.attn_resolutions(16))
    expected = {"name": name, **SPEC, **usual, **options}
    if found.get("encoder_type") == "residual":
        expected.setdefault("resample_filter", (1.0, 3.0, 3.0, 1.0))
    if found.get("encoder_type") == "skip":
        expected.setdefault("combine", "sum")
    assert found == expected
    assert shown.channels == 3


HIGH = {"model_channels": 128, "channel_mult": (1, 1, 2, 2, 2, 2, 2), "attn_resolutions": (16,)}
LOW = {"model_channels": 128, "channel_mult": (1, 2, 2, 2), "attn_resolutions": (16,)}
TALL = {"model_channels": 16, "channel_mult": (1, 2, 4, 8, 16, 32, 32, 32), "attn_resolutions": (16,), "num_blocks": 1}
PYRAMID = {"encoder_type": "skip", "decoder_type": "skip"}
PLAIN = {"encoder_type": "standard", "embedding_type": "positional"}


@pytest.mark.parametrize(
    ("name", "options", "side", "tensors", "parameters"),
    [
        ("ncsnpp", {**LOW, "num_blocks": 4}, 32, 571, 62_758_915),  # of 128 frequencies, which are not learnt
        ("ncsnpp", {**LOW, "num_blocks": 8}, 32, 963, 107_587_075),
        ("ncsnpp", {**LOW, "num_blocks": 4, "embedding_type": "positional"}, 32, 570, 62_693_251),
        ("ncsnpp", {**LOW, "num_blocks": 4, **PLAIN}, 32, 564, 61_804_419),
        ("ncsnpp", {**LOW, "num_blocks": 8, **PLAIN}, 32, 956, 106_632_579),
        ("ncsnpp", {**HIGH, "num_blocks": 2, **PYRAMID}, 256, 645, 65_574_549),
        ("ncsnpp", {**TALL, **PYRAMID}, 1024, 553, 105_785_896),
        ("ddpm", {**LOW, "num_blocks": 2}, 32, 308, 35_218_947),
        ("ddpm", {**HIGH, "channel_mult": (1, 1, 2, 2, 4, 4), "num_blocks": 2}, 256, 430, 111_569_923),
    ],
)
def test_published_networks_are_known_by_their_tensors(tmp_path, name, options, side, tensors, parameters):
    with torch.device("meta"):
        state = registry.build("backbones", {"name": name, **options}, (3, side, side), 0).state_dict()
    assert (len(state), sum(value.numel() for value in state.values())) == (tensors, parameters)
    shown = read_ncsnpp_shape(tmp_path, state)
    found = {key: tuple(v) if isinstance(v, list) else v for key, v in shown.backbone.items()}
    found["attn_resolutions"] = tuple(shown.attn_resolutions(side))
    assert options.items() <= found.items()
    assert module.SIDES[shown.layers] == side


@pytest.mark.parametrize("before", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("name", ["ncsnpp", "ddpm"])
def test_a_network_alone_in_safetensors(tmp_path, name, before):
    net = network(name, **({"model_channels": 32} if name == "ddpm" else {})).state_dict()
    told, levels = ({"process": "vp"}, {}) if name == "ddpm" else ({}, {"sigmas": torch.tensor([50.0, 1.0, 0.01])})
    save_file({before + key: value for key, value in (net | levels).items()}, tmp_path / "net.safetensors")
    assert format_of(tmp_path / "net.safetensors") == "score_sde"
    model = cmtool.load(tmp_path / "net.safetensors", format={"side": 16, **told})
    assert all(torch.equal(value, net[key]) for key, value in model.model.net.state_dict().items())
    assert model.header.sha256 == digest(tmp_path / "net.safetensors")


def test_the_average_is_taken_unless_it_is_not_wanted(file):
    net, averaged = network(), cmtool.load(file, **SIDE)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in averaged.model.net.state_dict().items())
    itself = cmtool.load(file, format={"side": 16, "ema": False}).model.net.state_dict()
    learnt = dict(net.named_parameters())
    assert all(torch.equal(value, net.state_dict()[name] + (name in learnt)) for name, value in itself.items())


@torch.no_grad()
def test_ve_is_told_the_level_of_its_own_images(file):
    """``score = h(2 x - 1, ln sigma) / sigma`` on images in [0, 1], so that ours are at twice the level."""
    model, net = cmtool.load(file, **SIDE), network()
    theirs, half = (X + 1) / 2, SIGMA / 2
    score = net(2 * theirs - 1, half.log()) / half[:, None, None, None]
    clean = theirs + half[:, None, None, None] ** 2 * score
    torch.testing.assert_close(model(X, SIGMA), 2 * clean - 1, atol=1e-3, rtol=1e-3)
    assert (model.header.sigma_min, model.header.sigma_max) == pytest.approx((0.02, 100))
    centred = cmtool.load(file, format={"side": 16, "centered": True})
    expected = X + SIGMA[:, None, None, None] * net(X, SIGMA.log())
    torch.testing.assert_close(centred(X, SIGMA), expected, atol=1e-3, rtol=1e-3)
    assert centred.header.sigma_max == pytest.approx(50)


@torch.no_grad()
@pytest.mark.parametrize("process", ["vp", "subvp"])
def test_vp_predicts_the_noise_of_a_time(tmp_path, process):
    path = write(tmp_path / "net.pth", encoder_type="standard", embedding_type="positional")
    model = cmtool.load(path, format={"side": 16, "process": process}, backbone={"resample_filter": [1, 3, 3, 1]})
    chosen, net = (VP(), SubVP())[process == "subvp"], network(encoder_type="standard", embedding_type="positional")
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    sigma, kept = chosen.sigma(t), chosen.scale(t)[:, None, None, None]
    noise = net((kept * X).float(), (999 * t).float())
    torch.testing.assert_close(model(X.double(), sigma), X - sigma[:, None, None, None] * noise, atol=1e-3, rtol=1e-3)
    assert model.header.sigma_max == pytest.approx(float(chosen.sigma(torch.tensor(1.0))))
    assert model.header.sigma_min == pytest.approx(float(chosen.sigma(torch.tensor(1e-3, dtype=torch.float64))))


@torch.no_grad()
def test_ddpm_predicts_the_noise_of_a_step(tmp_path):
    path = write(tmp_path / "net.pth", "ddpm", range(1000, 0, -1), model_channels=32)
    model, net = cmtool.load(path, format={"side": 16, "process": "ddpm"}), network("ddpm", model_channels=32)
    steps = torch.tensor([500, 12])
    sigma = ddpm_sigmas()[steps]
    kept = 1 / (1 + sigma**2).sqrt()
    noise = net((kept[:, None, None, None] * X).float(), steps.float())
    torch.testing.assert_close(model(X.double(), sigma), X - sigma[:, None, None, None] * noise, atol=1e-3, rtol=1e-3)


def test_what_is_missing_is_said_at_once(tmp_path, file, monkeypatch):
    with pytest.raises(UsageError, match=r"does not say format.side$"):
        cmtool.load(file)
    plain = write(tmp_path / "plain.pth", embedding_type="positional")
    with pytest.raises(UsageError) as told:
        cmtool.load(plain)
    assert told.value.message == f"{plain} does not say format.process, format.side"
    assert word_hint(told.value.hint).endswith("--set format.process=vp --set format.side=32")
    monkeypatch.setitem(module.SIDES, (16, (1, 2), (1,)), 16)
    assert cmtool.load(file).header.shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backbone": {"model_channels": 32}}, r"backbone.model_channels=32 contradicts .*, whose is 16"),
        ({"backbone": {"resample_filter": [1, 1]}}, r"backbone.resample_filter=\[1, 1\] contradicts"),
        ({"backbone": {"hat": 1}}, "unknown option of network architecture 'ncsnpp' 'hat'"),
        ({"format": {"process": "vp"}}, "format.process=vp does not fit .*: it has Fourier features"),
        ({"format": {"process": "edm"}}, "unknown value of option 'process' of checkpoint format 'score_sde' 'edm'"),
        ({"format": {"side": 9}}, "sides that are multiples of 2"),
    ],
)
def test_what_contradicts_the_file_is_named(file, given, message):
    with pytest.raises(UsageError, match=message):
        cmtool.load(file, format={"side": 16, **given.get("format", {})}, backbone=given.get("backbone"))


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ({"process": "ve"}, "has no Fourier features, and so is not conditioned on ln sigma of ve"),
        ({"process": "vp", "centered": False}, r"images in \[0, 1\] belong to ve"),
        ({"process": "vp", "scale_by_sigma": True}, "scale_by_sigma belongs to ve"),
        ({"process": "vp", "beta_min": 5, "beta_max": 1}, "no betas from 5 to 1"),
        ({"process": "ddpm"}, "has 3 steps, too few for betas of 20"),
    ],
)
def test_what_has_no_preconditioning_is_refused(tmp_path, format, message):
    path = write(tmp_path / "net.pth", embedding_type="positional")
    with pytest.raises(UsageError, match=message):
        cmtool.load(path, format={"side": 16, **format})


def test_what_is_saved_as_ours_is_the_same_model(file, tmp_path):
    model = cmtool.load(file, **SIDE)
    save(tmp_path / "ours.safetensors", model.model, model.header)
    ours = load(tmp_path / "ours.safetensors")
    with torch.no_grad():
        assert torch.equal(ours(X, SIGMA), model(X, SIGMA))
    assert model.header.sha256 == digest(file)


def without(names, key):
    return {name: value for name, value in names.items() if name != key}


def model_without(key):
    return lambda f: f["model"].pop(f"module.all_modules.{key}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("model"), "no model in a format"),
        (lambda f: f["ema"]["shadow_params"].pop(), "no average that fits"),
        (lambda f: f["ema"]["shadow_params"].reverse(), "an average of another network"),
        (lambda f: f["ema"].update(shadow_params=5), "no average that fits"),
        (lambda f: f["ema"]["shadow_params"].__setitem__(0, "hat"), "more than named tensors"),
        (lambda f: f["model"].update({"module.hat": torch.zeros(1)}), "tensors that no network of score_sde has"),
        (lambda f: f["model"].update({"module.all_modules.x": torch.zeros(1)}), "no average that fits"),
        (lambda f: f["model"].update({"module.sigmas": torch.zeros(3)}), "holds no noise levels"),
        (lambda f: f.update(model=7), "no model in a format"),
        (lambda f: f["model"].update({"module.all_modules.1.weight": torch.zeros(64)}), "no whole network"),
        (
            lambda f: f["model"].update({"module.all_modules.1.weight": torch.zeros(64, 0)}),
            "does not fit its own network",
        ),
    ],
)
def test_files_that_make_no_network(file, change, message):
    content = torch.load(file, weights_only=True)
    change(content)
    itself = "no whole" in message or "does not fit" in message
    if itself:
        content["ema"] = {"shadow_params": []}
    torch.save(content, file)
    with pytest.raises(BadFile, match=message):
        cmtool.load(file, format={"side": 16, "ema": not itself})


def test_a_network_alone_is_taken_as_it_is(tmp_path, file):
    state = torch.load(file, weights_only=True)
    torch.save(state["model"], tmp_path / "alone.pth")
    plain = {name.removeprefix("module."): value for name, value in state["model"].items()}
    torch.save({"state_dict": {f"_orig_mod.{name}": value for name, value in plain.items()}}, tmp_path / "wrapped.pth")
    for name in ("alone.pth", "wrapped.pth"):
        found = cmtool.load(tmp_path / name, **SIDE)
        assert torch.equal(found.model.net.state_dict()["all_modules.1.weight"], plain["all_modules.1.weight"])
        assert not found.header.average
    assert cmtool.load(file, **SIDE).header.average == {"ema": "ema"}
    assert format_of(file) == "score_sde"
    assert format_of(tmp_path) is None


@torch.no_grad()
@pytest.mark.parametrize("centered", [True, False])
def test_smld_is_told_the_number_of_a_step_from_the_largest_level(tmp_path, centered):
    """``score = h(x, i) / sigma_i``, sigma_i = 50 (0.01 / 50)^(i / (N - 1)), as ve/cifar10_ncsnpp was trained."""
    sigmas = torch.logspace(math.log10(50), -2, 30, dtype=torch.float64)
    path = write(tmp_path / "net.pth", levels=sigmas.tolist(), embedding_type="positional")
    model = cmtool.load(path, format={"side": 16, "process": "smld", "centered": centered})
    net, unit = network(embedding_type="positional"), 1 if centered else 2
    steps = torch.tensor([3, 17])
    expected = X + unit * sigmas[steps][:, None, None, None] * net(X, steps.float()).double()
    torch.testing.assert_close(model(X.double(), unit * sigmas[steps]), expected, atol=1e-3, rtol=1e-3)
    assert (model.header.sigma_min, model.header.sigma_max) == pytest.approx((0.01 * unit, 50 * unit))


@torch.no_grad()
@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("embedding", ["fourier", "positional"])
def test_a_score_that_is_not_divided_by_its_level(tmp_path, centered, embedding):
    path = write(tmp_path / "net.pth", embedding_type=embedding)
    about = {"side": 16, "process": "ve", "scale_by_sigma": False, "centered": centered}
    model, net, unit = cmtool.load(path, format=about), network(embedding_type=embedding), 1 if centered else 2
    theirs = SIGMA / unit
    score = net(X, theirs.log() if embedding == "fourier" else theirs)  # of images that are X in [-1, 1]
    expected = X + unit * theirs[:, None, None, None] ** 2 * score
    torch.testing.assert_close(model(X, SIGMA), expected, atol=1e-3, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("process", ["vp", "subvp"])
def test_other_betas_and_fourier_features_of_a_time(tmp_path, process):
    path = write(tmp_path / "net.pth")
    about = {"process": process, "beta_min": 0.5, "beta_max": 12.0, "scale_by_sigma": False}
    model, net = cmtool.load(path, format={"side": 16, **about}), network()
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    kept = (-(0.5 * t + 5.75 * t**2) / 2).exp()[:, None, None, None]
    sigma = (1 - kept**2) ** (0.5 if process == "vp" else 1) / kept
    noise = net((kept * X).float(), (999 * t).log().float())
    torch.testing.assert_close(model(X.double(), sigma.flatten()), X - sigma * noise, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_steps_of_other_betas(tmp_path):
    path = write(tmp_path / "net.pth", "ddpm", range(400, 0, -1), model_channels=32)
    model = cmtool.load(path, format={"side": 16, "process": "ddpm", "beta_min": 0.2, "beta_max": 8.0})
    kept = (1 - torch.linspace(0.2 / 400, 8 / 400, 400, dtype=torch.float64)).cumprod(0).sqrt()
    steps = torch.tensor([350, 12])
    scale = kept[steps][:, None, None, None]
    sigma = (1 - scale**2).sqrt() / scale
    noise = network("ddpm", model_channels=32)((scale * X).float(), steps.float())
    torch.testing.assert_close(model(X.double(), sigma.flatten()), X - sigma * noise, atol=1e-3, rtol=1e-3)
    assert model.header.sigma_max == pytest.approx(float(((1 - kept[-1] ** 2) / kept[-1] ** 2).sqrt()))
