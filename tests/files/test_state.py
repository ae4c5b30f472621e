import math

import pytest
import torch

from cmtool.errors import BadFile, MissingInput
from cmtool.files.sealed import DTYPES, load_state, save_state


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def test_every_type_and_shape_comes_back_bit_for_bit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {"rng": torch.get_rng_state(), "empty": torch.zeros(0, 3), "view": torch.arange(12).reshape(3, 4).T[1:]}
    for dtype in DTYPES:
        tensors[f"number {dtype}"] = torch.ones((), dtype=dtype)
        tensors[f"rows/{dtype}"] = torch.randint(0, 2, (3, 5), generator=generator).to(dtype)
    tensors["special"] = torch.tensor([math.nan, math.inf, -0.0, 1e-45])
    scalars = {"images": 2**60, "rate": 0.1 + 0.2, "loss": [1 / 3, {"deep": None}], "run": "é", "on": True}
    save_state(tmp_path, tensors, scalars)
    found, told = load_state(tmp_path)
    assert told == scalars
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert bits(found[name]) == bits(tensor)


def test_a_loss_that_is_not_finite_survives(tmp_path):
    save_state(tmp_path / "s.safetensors", {}, {"loss": math.nan, "best": math.inf})
    _, told = load_state(tmp_path / "s.safetensors")
    assert math.isnan(told["loss"])
    assert told["best"] == math.inf


def test_the_tensors_outlive_the_file(tmp_path):
    save_state(tmp_path, {"a": torch.arange(1000)}, {})
    found, _ = load_state(tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"")
    assert torch.equal(found["a"], torch.arange(1000))
    assert found["a"].data_ptr() % 16 == 0


def test_damage_and_absence(tmp_path):
    with pytest.raises(MissingInput):
        load_state(tmp_path)
    save_state(tmp_path, {"a": torch.arange(5)}, {"b": 1})
    path = tmp_path / "state.safetensors"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(BadFile):
            load_state(tmp_path)
        path.write_bytes(whole[:place])
        with pytest.raises(BadFile):
            load_state(tmp_path)
