"""Sharded weights (FSDP2) on processes with gloo: the results of one process, and states that any number reads.

What NCCL does, and a mesh of GPUs, cannot be tried here.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sharded_ranks import METHODS, STATE, fresh
from torch import nn

from cmtool.backbones.edm2 import edm2
from cmtool.backbones.unet import unet
from cmtool.files.sharded_states import load_sharded, open_sharded
from cmtool.training.sharding import blocks_of
from cmtool.training.state import pack, unpack

PROGRAM = Path(__file__).with_name("sharded_ranks.py")


def on_ranks(size: int, work: str, folder: Path) -> list[dict[str, Any]]:
    """What a work of the program finds on each rank."""
    command = [sys.executable, "-W", "ignore", str(PROGRAM), str(size), work, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{work}-{rank}-of-{size}.json").read_text()) for rank in range(size)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("trained")
    return folder, on_ranks(2, "training", folder)


def assert_equal(one, other) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0, msg=name)


def test_sharded_training_is_that_of_ddp_and_of_one_process(trained):
    """With dropout, clipping, micro-batches, two averages and a target network."""
    for found in trained[1]:
        for other in ("ddp", "exact"):
            assert found[other]["loss"] < 1e-5
            assert found[other]["gradient"] < 1e-4
            assert found[other]["weights"] < 1e-4  # Adam's step is a sign where a gradient is nearly 0
            assert found[other]["gap"] < 1e-3
        assert found["again"], "a second run has other bits"
        assert 0.4 < found["share"] < 0.6, "each of two ranks has about half of the weights"


def test_a_state_in_shards_goes_on_with_the_same_bits(trained):
    assert all(found["resumed"] for found in trained[1])


def test_one_process_reads_shards_bit_for_bit(trained):
    folder, _ = trained
    stored = open_sharded(folder / STATE)
    assert stored.scalars["note"] == "kept as it is"
    assert len(list((folder / STATE).glob("*.safetensors"))) == 2
    tensors = load_sharded(stored)
    assert_equal(tensors, load_file(folder / "saved"))
    whole = fresh()
    unpack(whole, tensors, stored.scalars)
    assert_equal(pack(whole)[0], tensors)
    assert whole.images == 40
    assert_equal(dict(whole.average.model.state_dict()), load_file(folder / "average"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4])
def test_other_numbers_of_ranks_read_shards_bit_for_bit(trained, size):
    folder, _ = trained
    assert on_ranks(size, "loading", folder) == [{"same": True, "images": 40}] * size
    saved = load_file(folder / "saved")
    assert_equal(load_file(folder / f"loaded-{size}"), saved)
    assert_equal(load_sharded(open_sharded(folder / f"again-{size}")), saved)


@pytest.mark.slow
def test_every_kind_of_method_can_be_sharded(tmp_path):
    """Target networks, teachers that images call unevenly often, gradients within losses, forward mode, guidance."""
    for found in on_ranks(2, "methods", tmp_path):
        assert found.keys() == {name for names in METHODS.values() for name in names}
        for name, apart in found.items():
            # tcm divides by noise levels that differ by a thousandth
            assert apart["loss"] < (1e-4 if name == "tcm" else 1e-5), name
            assert apart["gradient"] < (1e-3 if name == "tcm" else 1e-4), name
            assert apart["weights"] < 1e-4, name


@pytest.mark.slow
def test_odd_weights_other_optimizers_and_lower_precision(tmp_path):
    for found in on_ranks(2, "networks", tmp_path):
        for name in ("edm2", "adamw", "radam"):
            assert found[name]["loss"] < 1e-5, name
            assert found[name]["weights"] < 1e-4, name
        assert found["bf16"]["loss"] < 0.02
        assert found["bf16"]["fp32"] > 1e-6, "the lower precision changes nothing"
    assert_equal(load_sharded(open_sharded(tmp_path / "edm2")), load_file(tmp_path / "edm2-values"))


def test_refusals_are_the_same_on_all_ranks(tmp_path):
    for found in on_ranks(2, "refusals", tmp_path):
        kind, code, text, hint, images = found["method"]
        assert (kind, code, images) == ("UsageError", 2, 0)
        assert "cannot be trained with sharded weights" in text
        assert "parallel=ddp" in hint
        assert found["batch"][:3] == ["UsageError", 2, "batch=7 cannot be shared equally by 2 ranks"]
        assert found["write"][:2] == ["WriteFailed", 74]
    assert not list(tmp_path.rglob(".tmp-*"))


def test_blocks_are_what_stands_in_lists_and_no_block_is_in_another():
    net = unet((1, 8, 8), 0, model_channels=8, channel_mult=(1, 2), num_blocks=1)
    assert isinstance(net, nn.Module)
    blocks = blocks_of(net)
    assert blocks == [*net.down, *net.up]
    parts = [id(part) for block in blocks for part in block.modules()]
    assert len(parts) == len(set(parts))
    plain = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert blocks_of(plain) == []
    magnitude = edm2((1, 8, 8), 0, model_channels=32, channel_mult=(1, 2), num_blocks=1)
    assert all(any(p.ndim for p in block.parameters()) for block in blocks_of(magnitude))
