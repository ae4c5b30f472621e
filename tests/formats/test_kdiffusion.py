"""What the format ``kdiffusion`` reads off a configuration, what it refuses, and what the model then computes."""

import json

import pytest
import torch
from kdiffusion_files import configured, network, slim, training
from safetensors.torch import load_file, save_file

import cmtool
from cmtool.errors import BadFile, UsageError
from cmtool.files.checkpoint import digest, load, save
from cmtool.files.model_files import format_of
from cmtool.options.hint_words import word_hint

X, SIGMA = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 20.0])


@pytest.fixture
def file(tmp_path):
    return slim(tmp_path / "net.safetensors")


@torch.no_grad()
def test_it_predicts_under_the_scalings_of_its_own_data(file):
    """Karras et al. 2022, table 1: of data of deviation d, and told ln sigma / 4."""
    s, d = SIGMA[:, None, None, None], 0.6
    c_in = 1 / (s**2 + d**2).sqrt()
    expected = d**2 * c_in**2 * X + s * d * c_in * network()(c_in * X, SIGMA.log() / 4)
    torch.testing.assert_close(cmtool.load(file)(X, SIGMA), expected, rtol=1e-5, atol=1e-5)


def test_the_header_says_what_it_is(file):
    header = cmtool.load(file).header
    assert format_of(file) == header.method == "kdiffusion"
    assert (header.kind, header.sigma_min, header.sigma_max, header.shape) == ("score", 0.01, 80.0, (3, 8, 8))
    assert (header.preconditioning["sigma_data"], header.num_classes) == (0.6, 0)
    assert header.sha256 == digest(file)


def test_our_copy_is_the_same_model(file, tmp_path):
    model = cmtool.load(file)
    save(tmp_path / "ours.safetensors", model.model, model.header)
    assert torch.equal(load(tmp_path / "ours.safetensors")(X, SIGMA), model(X, SIGMA))


def test_half_precision_is_read_as_it_is(tmp_path):
    half = cmtool.load(slim(tmp_path / "half.safetensors", dtype=torch.float16)).model.net.state_dict()
    assert all(torch.equal(half[name], value.half().float()) for name, value in network().state_dict().items())


@pytest.mark.parametrize("name", ["net_00000003.pth", "net.safetensors"])
def test_files_are_known_by_their_content(tmp_path, name):
    made = training(tmp_path / "a.pth") if name.endswith("safetensors") else slim(tmp_path / "a.safetensors")
    assert format_of(made.rename(tmp_path / name)) == "kdiffusion"


def test_of_a_training_the_average_is_taken_unless_it_is_not_wanted(tmp_path):
    path = training(tmp_path / "net_00000003.pth")
    for ema, more in ((True, 0), (False, 1)):
        found = cmtool.load(path, format={"ema": ema}).model.net.state_dict()
        assert all(torch.equal(found[name], value + more) for name, value in network().state_dict().items())


@pytest.mark.parametrize(
    ("options", "model"),
    [
        ({"augment_dim": 0}, {"augment_wrapper": False}),
        ({"patch": 2}, {"patch_size": 2}),
        ({"learn_variance": True}, {"has_variance": True}),
        ({"depths": (2, 1), "attention": (0, 1)}, {"depths": [2, 1], "self_attn_depths": [True, True]}),
    ],
)
def test_the_configuration_tells_the_architecture(tmp_path, options, model):
    net, wrapped = network(**options), options.get("augment_dim", 9) > 0
    found = cmtool.load(slim(tmp_path / "a.safetensors", net, configured(**model), wrapped))
    assert torch.equal(found.model.net(X, SIGMA), net(X, SIGMA))


def test_levels_are_those_configured_or_said(tmp_path, file):
    header = cmtool.load(file, format={"sigma_min": 0.02, "sigma_max": 50}).header
    assert (header.sigma_min, header.sigma_max) == (0.02, 50.0)
    silent = slim(tmp_path / "a.safetensors", config=configured(sigma_min=None, sigma_max=None))
    with pytest.raises(UsageError, match=r"does not say format.sigma_min, format.sigma_max$") as caught:
        cmtool.load(silent)
    assert word_hint(caught.value.hint) == (
        f"write what is true of it into {silent}.yaml, or give it: such as "
        "--set format.sigma_min=0.01 --set format.sigma_max=80"
    )
    with pytest.raises(UsageError, match=r"no noise levels from 90.0 to 80.0"):
        cmtool.load(file, format={"sigma_min": 90})


def test_the_data_have_deviation_1_unless_it_is_said(tmp_path):
    assert cmtool.load(slim(tmp_path / "a", config=configured(sigma_data=None))).model.preconditioning.sigma_data == 1.0


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"type": "image_transformer_v2"}, "holds k-diffusion's network 'image_transformer_v2', which cmtool does not"),
        ({"type": "guided_diffusion"}, "network 'guided_diffusion', which"),
        ({"cross_cond_dim": 768}, "a network with cross_cond_dim=768, which cmtool's cannot have"),
        ({"mapping_cond_dim": 4}, "mapping_cond_dim=4"),
        ({"skip_stages": 1}, "skip_stages=1"),
        ({"channels": [32, 1 << 30]}, "a network that cannot be: channels="),
        ({"channels": []}, "channels="),
        ({"depths": [1]}, "cannot be: depths="),
        ({"depths": [1, 10**9]}, "depths="),
        ({"depths": None}, "depths=None"),
        ({"self_attn_depths": [0, 1]}, "self_attn_depths="),
        ({"self_attn_depths": [True]}, "self_attn_depths="),
        ({"input_size": [6, 7]}, "cannot be used: image_v1 with 2 levels"),
        ({"input_size": "8"}, "input_size=8"),
        ({"input_channels": True}, "input_channels=True"),
        ({"dropout_rate": 2}, "dropout_rate=2"),
        ({"sigma_data": -1}, "sigma_data=-1"),
        ({"sigma_max": float("inf")}, "sigma_max=inf"),
        ({"mapping_out": 18}, "does not fit its own network"),
        ({"channels": [32, 128]}, "does not fit its own network"),
    ],
)
def test_networks_that_are_not_ours(tmp_path, model, sentence):
    with pytest.raises(BadFile, match=sentence):
        cmtool.load(slim(tmp_path / "a.safetensors", config=configured(**model)))


def test_what_is_said_may_not_contradict_the_file(file):
    assert cmtool.load(file, backbone={"dropout": 0.1, "wide": 16}).header.backbone["dropout"] == 0.1
    with pytest.raises(UsageError, match=r"backbone.wide=32 contradicts .*, whose is 16"):
        cmtool.load(file, backbone={"wide": 32})
    with pytest.raises(UsageError, match="unknown option of network architecture 'image_v1' 'wid'"):
        cmtool.load(file, backbone={"wid": 32})
    with pytest.raises(UsageError, match="holds an average and nothing else"):
        cmtool.load(file, format={"ema": False})


def test_a_training_without_a_configuration(tmp_path):
    with pytest.raises(BadFile, match="has no configuration of k-diffusion"):
        cmtool.load(training(tmp_path / "a.pth", config=None, model_ema={}))


def test_other_safetensors_are_not_of_this_format(tmp_path, file):
    weights = load_file(file)
    for said in (None, {"config": "x"}, {"config": "[]"}, {"config": json.dumps({"model": 1})}, {"config": "[" * 9999}):
        save_file(weights, tmp_path / "a.safetensors", metadata=said)
        assert format_of(tmp_path / "a.safetensors") is None


@pytest.mark.parametrize("kept", [0, 7, 100, 1000, -100, -1])
def test_a_file_that_is_cut_short(file, tmp_path, kept):
    for made in (file, training(tmp_path / "a.pth")):
        (tmp_path / "cut").write_bytes(made.read_bytes()[:kept])
        with pytest.raises(BadFile):
            cmtool.load(tmp_path / "cut")
        with pytest.raises(BadFile):
            cmtool.load(tmp_path / "cut", format={"name": "kdiffusion"})
