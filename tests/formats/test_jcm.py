"""The CIFAR-10 consistency models: flax's files, read without flax."""

import numpy as np
import pytest
import torch
from flax_files import pack, tree, write
from score_sde_files import network

import cmtool
from cmtool.errors import BadFile, UsageError
from cmtool.files.model_files import format_of
from cmtool.formats.flax_msgpack import unpack_flax

SAID = {"format": {"kind": "consistency", "side": 16}, "backbone": {"attention": [1]}}


@pytest.fixture
def net():
    return network(num_blocks=2)


@pytest.fixture
def file(tmp_path, net):
    return write(tmp_path / "checkpoint_80", net)


def test_what_was_packed_is_unpacked(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.uint8([]), "c": np.float64(2.5)}
    plain = {"none": None, "yes": True, "n": [0, 127, -32, 2**40, -(2**40)], "f": 0.1, "long": "ö" * 20, "m": {}}
    (tmp_path / "x").write_bytes(pack({**arrays, **plain, **{str(i): i for i in range(20)}}))
    found = unpack_flax(tmp_path / "x")
    assert {key: found[key] for key in plain} == plain
    for key, array in arrays.items():
        assert found[key].dtype == array.dtype
        assert found[key].shape == array.shape
        assert np.array_equal(found[key], array)


@torch.no_grad()
def test_the_average_is_a_consistency_model_with_its_boundary(file, net):
    model = cmtool.load(file, **SAID)
    assert format_of(file) == "jcm"
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in model.model.net.state_dict().items())
    x, sigma = torch.randn(2, 3, 16, 16), torch.tensor([0.002, 5.0])
    found = model(x, sigma)
    assert torch.equal(found[0], x[0])
    inside = net(x[1:] / (25.25) ** 0.5, torch.tensor([5.0]).log() / 4)
    above = 5 - 0.002
    expected = 0.25 / (above**2 + 0.25) * x[1:] + above * 0.5 / 25.25**0.5 * inside
    torch.testing.assert_close(found[1:], expected, atol=1e-4, rtol=1e-4)
    assert (model.header.kind, model.header.sigma_min, model.header.sigma_max) == ("consistency", 0.002, 80)


def test_the_kind_is_said_or_known(tmp_path, net, file):
    said = {"side": 16}
    with pytest.raises(UsageError, match=r"does not say format.kind$"):
        cmtool.load(file, format=said, backbone=SAID["backbone"])
    for path, kind in (
        (write(tmp_path / "edm_cifar10_ema", net), "score"),
        (write(tmp_path / "checkpoint_74", net, target_params={}), "consistency"),
    ):
        model = cmtool.load(path, format=said, backbone=SAID["backbone"])
        assert (model.header.kind, model.model.preconditioning.sigma_min > 0) == (kind, kind == "consistency")
    with pytest.raises(UsageError, match="option 'kind' of checkpoint format 'jcm' 'hat'"):
        cmtool.load(file, format={"kind": "hat"})


def test_attention_that_is_not_where_it_is_said_is_named(file):
    with pytest.raises(BadFile, match=r"arrays, and its network"):
        cmtool.load(file, format=SAID["format"], backbone={"attention": []})


def test_files_that_hold_no_network(tmp_path, net):
    whole = tree(net)
    for change, message in (
        (lambda t: t.pop("Conv_1"), "lacks the weight Conv_1/kernel|lacks the weight Conv_1/weight"),
        (lambda t: t.pop("GaussianFourierProjection_0"), "no whole network"),
        (lambda t: t["Conv_1"].update(bias=np.zeros(3, np.int32)), "lacks the weight Conv_1/bias"),
        (lambda t: t["Conv_1"].update(bias=np.zeros(2, np.float32)), "does not fit its own network"),
        (lambda t: t.update(ResnetBlockBigGANpp_0={}), "no whole network"),
        (lambda t: t.update(ResnetBlockBigGANpp_1=3), "no whole network"),
    ):
        made = {key: dict(value) for key, value in whole.items()}
        change(made)
        path = tmp_path / "checkpoint_1"
        path.write_bytes(pack({"params_ema": made, "step": 1}))
        with pytest.raises(BadFile, match=message):
            cmtool.load(path, **SAID)


HEAD = pack("params_ema") + pack("ResnetBlockBigGANpp_0")
HOSTILE = {
    "ends early": b"\x82" + HEAD,
    "two values": pack({"params_ema": "ResnetBlockBigGANpp_0"}) + b"\xc0",
    "deep": b"\x82" + HEAD + pack("x") + b"\x91" * 100_000,
    "long": b"\x82" + HEAD + pack("x") + b"\xdd\xff\xff\xff\xff",
    "an object": b"\x82" + HEAD + pack("x") + b"\xd4\x05\x00",
    "a name that is no text": b"\x82" + HEAD + b"\x01\x02",
    "an unknown byte": b"\x82" + HEAD + pack("x") + b"\xc1",
    "bytes that are none": b"\x82" + HEAD + pack("x") + b"\xc6\xff\xff\xff\xff",
    "an array of objects": b"\x82" + HEAD + pack("x") + b"\xc7\x0c\x01\x93\x91\x01\xa6object\xc4\x00",
    "an array larger than its bytes": b"\x82" + HEAD + pack("x") + b"\xc7\x0d\x01\x93\x91\x7f\xa7float32\xc4\x00",
    "an array of arrays": b"\x82" + HEAD + pack("x") + b"\xd4\x01\x93",
    "a shape below zero": b"\x82" + HEAD + pack("x") + b"\xc7\x0d\x01\x93\x91\xff\xa7float32\xc4\x00",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_end_in_a_sentence(tmp_path, name):
    path = tmp_path / "checkpoint_1"
    path.write_bytes(HOSTILE[name])
    assert format_of(path) == "jcm"
    with pytest.raises(BadFile, match="is damaged, or no file of flax"):
        cmtool.load(path, **SAID)


def test_any_byte_may_be_another(tmp_path, file):
    """Changed at random, a file is a model with other weights, or refused; it never is anything else."""
    whole, rng = bytearray(file.read_bytes()), np.random.default_rng(0)
    places = [i for i in range(len(whole)) if whole[i] >= 0x80 or bytes(whole[i : i + 2]).isalpha()]
    for at in rng.choice(places, 60):
        changed = bytearray(whole)
        changed[at] = rng.integers(256)
        file.write_bytes(changed)
        try:
            cmtool.load(file, **SAID)
        except (BadFile, UsageError):
            continue
