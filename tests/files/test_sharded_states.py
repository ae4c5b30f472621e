"""States in shards, read from files that were made by hand."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cmtool.core.denoiser import Preconditioning
from cmtool.errors import BadFile, UsageError
from cmtool.files.header import Header
from cmtool.files.run_states import keep_newest, newest_state, stored_states
from cmtool.files.sealed import save_state
from cmtool.files.sharded_states import is_sharded, load_sharded, open_average, open_sharded
from cmtool.options import registry

WEIGHT = torch.arange(15, dtype=torch.float32).view(5, 3)
STEP, COUNTS = torch.tensor(7.0), torch.tensor([1, 2, 3])
SPEC = {"name": "mlp", "hidden_dim": 4, "depth": 1}
SCALARS = {"images": 40, "parents": []}


def shard(place: Path, parts: dict[str, tuple[torch.Tensor, list[int]]]) -> None:
    """A shard as torch writes it: where each part lies in its tensor stands before the data."""
    about = {name: {"saved_offsets": offsets} for name, (_, offsets) in parts.items()}
    metadata = {"DCP_SHARDING_INFO": json.dumps(about), "DCP_VERSION": "1.0", "format": "pt"}
    save_file({name: part.contiguous() for name, (part, _) in parts.items()}, place, metadata)


def seal(folder: Path, scalars: dict = SCALARS, **about) -> Path:
    files = {}
    for path in sorted(folder.glob("*.safetensors")):
        files[path.name] = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    document = {"format": 1, "sha256": "0" * 64, "scalars": scalars, "files": files, **about}
    text = json.dumps(document)
    text = text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest(), 1)
    (folder / "manifest.json").write_text(text)
    return folder


def state(folder: Path, **about) -> Path:
    """Two ranks: the first has three rows and what is not sharded, the second two rows."""
    folder.mkdir(parents=True)
    shard(
        folder / "shard-00001-model-00001-of-00001.safetensors",
        {"model.w": (WEIGHT[:3], [0, 0]), "optimiser.0.step": (STEP, []), "objective.n": (COUNTS, [0])},
    )
    shard(folder / "shard-00002-model-00001-of-00001.safetensors", {"model.w": (WEIGHT[3:], [3, 0])})
    return seal(folder, **about)


def test_parts_are_put_together(tmp_path):
    stored = open_sharded(state(tmp_path / "00000040"))
    assert is_sharded(stored.folder)
    assert stored.scalars == SCALARS
    tensors = load_sharded(stored)
    assert tensors.keys() == {"model.w", "optimiser.0.step", "objective.n"}
    for name, wanted in (("model.w", WEIGHT), ("optimiser.0.step", STEP), ("objective.n", COUNTS)):
        assert tensors[name].dtype == wanted.dtype
        assert torch.equal(tensors[name], wanted)
    assert load_sharded(stored, "objective.").keys() == {"objective.n"}


def test_any_bit_that_is_wrong_is_found(tmp_path):
    folder = state(tmp_path / "00000040")
    for path in folder.iterdir():
        whole = path.read_bytes()
        for place in range(0, len(whole), max(len(whole) // 40, 1)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(BadFile):
                open_sharded(folder)
        path.write_bytes(whole[:-1])
        with pytest.raises(BadFile):
            open_sharded(folder)
        path.unlink()
        with pytest.raises(BadFile, match="not there"):
            open_sharded(folder)
        path.write_bytes(whole)
    open_sharded(folder)
    (folder / "other.safetensors").write_bytes(b"")
    with pytest.raises(BadFile, match="one too many"):
        open_sharded(folder)


def test_sealed_nonsense_is_refused(tmp_path):
    """Seals are no secret: a part that is not there must not become memory, and a name that leads away no file."""
    with pytest.raises(BadFile, match="another version"):
        open_sharded(state(tmp_path / "newer", format=2))
    with pytest.raises(BadFile):
        open_sharded(state(tmp_path / "no files", files=None))
    with pytest.raises(BadFile):
        open_sharded(state(tmp_path / "a list", scalars=[1]))
    far = tmp_path / "far"
    far.mkdir()
    shard(far / "shard-00001-model-00001-of-00001.safetensors", {"model.w": (WEIGHT[:3], [10**12, 0])})
    with pytest.raises(BadFile, match=r"a part of model\.w is missing"):
        open_sharded(seal(far))
    away = state(tmp_path / "away")
    (tmp_path / "secret").write_text("x")
    with pytest.raises(BadFile):
        open_sharded(seal(away, files={"../secret": {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}}))
    none = tmp_path / "none"
    none.mkdir()
    save_file({"model.w": WEIGHT}, none / "shard-00001-model-00001-of-00001.safetensors", {"DCP_SHARDING_INFO": "{"})
    with pytest.raises(BadFile):
        open_sharded(seal(none))


def test_a_run_takes_the_newest_whole_state_of_either_form(tmp_path):
    save_state(tmp_path / "states" / "00000032.safetensors", {"w": WEIGHT}, SCALARS)
    folder = state(tmp_path / "states" / "00000040")
    state(tmp_path / "states" / ".tmp-00000048")  # of a writer that was killed
    assert [path.name for path in stored_states(tmp_path)] == ["00000040", "00000032.safetensors"]
    found = newest_state(tmp_path, pytest.fail)
    assert found is not None and found.path == folder and found.shards is not None
    broken = next(folder.glob("shard-00002*"))
    broken.write_bytes(broken.read_bytes()[:-1])
    said: list[str] = []
    found = newest_state(tmp_path, said.append)
    assert found is not None and found.path.name == "00000032.safetensors" and found.shards is None
    assert len(said) == 1 and "damaged" in said[0]
    assert (tmp_path / "states" / "00000040.damaged").is_dir()
    state(tmp_path / "states" / "00000056"), state(tmp_path / "states" / "00000064")
    keep_newest(tmp_path, 1)
    assert [path.name for path in stored_states(tmp_path)] == ["00000064"]


def test_averages_are_merged_into_models(tmp_path):
    folder = tmp_path / "00000040"
    folder.mkdir()
    torch.manual_seed(0)
    net = registry.build("backbones", SPEC, (2,), 0)
    parts: tuple[dict, dict] = {}, {}
    for prefix, by in (("average.net.", 0.0), ("averages/power-0.1/net.", 1.0)):
        for name, value in net.state_dict().items():
            if value.ndim and len(value) > 1:
                half = len(value) // 2
                rest = [0] * (value.ndim - 1)
                parts[0][prefix + name] = value[:half] + by, [0, *rest]
                parts[1][prefix + name] = value[half:] + by, [half, *rest]
            else:
                parts[0][prefix + name] = value + by, [0] * value.ndim
    for rank, each in enumerate(parts, 1):
        shard(folder / f"shard-{rank:05d}-model-00001-of-00001.safetensors", each)
    preconditioning = asdict(Preconditioning())
    data = {"name": "ring", "shape": [2], "classes": []}
    header = Header("score", SPEC, preconditioning, data, 0, 0.002, 80.0).document()
    models = {
        "average.": header | {"average": {"ema": "half-life:200"}},
        "averages/power-0.1/": header | {"average": {"ema": "power:0.1"}},
    }
    seal(folder, SCALARS | {"models": models})
    for name, by in ((None, 0.0), ("half-life:200", 0.0), ("power:0.1", 1.0)):
        loaded = open_average(folder, name)
        for key, value in loaded.model.net.state_dict().items():
            assert torch.equal(value, net.state_dict()[key] + by), key
        assert loaded.header.average["ema"] == (name or "half-life:200")
    with pytest.raises(UsageError, match=r"power:0\.2"):
        open_average(folder, "power:0.2")
