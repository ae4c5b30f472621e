import random
import resource
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.errors import BadFile, MissingInput, WriteFailed
from cmtool.files.checkpoint import digest, load, save
from cmtool.files.container import add_seal, pack
from cmtool.files.header import KEY, Header, read_header
from cmtool.files.sealed import save_state
from cmtool.options import registry

SPEC = {"name": "mlp", "hidden_dim": 4, "depth": 1}


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = registry.build("backbones", SPEC, (2,), 3)
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_()
    return Denoiser(net, Preconditioning(sigma_min=0.002)).eval()


@pytest.fixture
def header():
    data = {"name": "ring", "shape": [2], "classes": ["a", "b", "naïve \U0001f600"], "notice": 'a "quoted" line\\'}
    return Header("consistency", SPEC, {}, data, 3, 0.002, 80.0, [0.8], "cd", 1234, {"rate": 1e-4}, licence="CC0")


@pytest.fixture
def path(tmp_path, model, header):
    save(tmp_path / "model.safetensors", model, header)
    return tmp_path / "model.safetensors"


def rewrite(path, change):
    """The checkpoint with a changed header and a seal that fits it."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        tensors = {name: file.get_tensor(name).numpy().tobytes() for name in names}
    document = {**read_header(path).document()}
    del document["sha256"]
    change(document)
    table, offset = {}, 0
    for name in names:
        shape = list(load(path).model.net.state_dict()[name].shape)
        table[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + len(tensors[name])]}
        offset += len(tensors[name])
    head, _ = add_seal(pack(table, KEY, document), tensors.values())
    path.write_bytes(head + b"".join(tensors.values()))
    return path


def test_a_model_comes_back_bit_for_bit(path, model, header):
    loaded = load(path)
    x, sigma, labels = torch.randn(8, 2), torch.linspace(0.002, 80, 8), torch.arange(8) % 3
    assert torch.equal(loaded(x, sigma, labels), model(x, sigma, labels))
    assert not loaded.model.training
    assert loaded.model.preconditioning == model.preconditioning
    stored = loaded.header
    assert len(stored.sha256) == 64
    assert replace(stored, sha256="", preconditioning={}, parameters=0) == header
    assert stored.parameters == sum(parameter.numel() for parameter in model.net.parameters())
    assert stored.preconditioning["sigma_min"] == 0.002
    assert read_header(path) == stored
    assert (stored.shape, stored.classes) == ((2,), tuple(header.data["classes"]))


def test_any_safetensors_reader_reads_it(path, model):
    with safe_open(path, "pt") as file:
        assert {name: tuple(file.get_tensor(name).shape) for name in file.keys()} == {  # noqa: SIM118 - not a dict
            name: tuple(weight.shape) for name, weight in model.net.state_dict().items()
        }


def test_equal_models_give_equal_files(path, model, header, tmp_path):
    save(tmp_path / "again.safetensors", model, header)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert digest(path) == digest(tmp_path / "again.safetensors")


def test_loading_leaves_the_callers_randomness_alone(path):
    before = torch.get_rng_state()
    load(path)
    assert torch.equal(before, torch.get_rng_state())


def test_every_flipped_byte_is_found(path):
    whole, pick = path.read_bytes(), random.Random(0)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << pick.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(BadFile):
            load(path)
        with pytest.raises(BadFile):
            read_header(path, whole=True)
        try:
            read_header(path)
        except BadFile as error:
            assert "\n" not in error.message


def test_every_truncation_is_found(path):
    whole, pick = path.read_bytes(), random.Random(0)
    for length in [0, 1, 7, 8, 9, len(whole) - 1, *pick.sample(range(len(whole)), 100)]:
        path.write_bytes(whole[:length])
        with pytest.raises(BadFile):
            load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(BadFile):
        load(path)


def test_a_flip_in_the_weights_says_so(path):
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 1
    path.write_bytes(whole)
    with pytest.raises(BadFile, match=r"is damaged: its contents do not match its checksum") as caught:
        load(path)
    assert caught.value.code == 65
    assert caught.value.hint


@pytest.mark.parametrize(
    "content",
    [
        b"some text, not a model\n" * 10,
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}",
        (10).to_bytes(8, "little") + b"\xff" * 10,
        (40_000).to_bytes(8, "little") + b"[" * 40_000,
        (14).to_bytes(8, "little") + b'{"a":1, "a":2}',
        (2**63).to_bytes(8, "little") + b"{}",
    ],
)
def test_nonsense_is_refused(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    for read in (load, read_header):
        with pytest.raises(BadFile):
            read(tmp_path / "x.safetensors")


def test_a_foreign_safetensors_file_is_named_as_such(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(BadFile, match="but not a checkpoint of cmtool"):
        load(tmp_path / "foreign.safetensors")
    save_state(tmp_path, {"a": torch.zeros(2)}, {})
    with pytest.raises(BadFile) as caught:
        read_header(tmp_path / "state.safetensors")
    assert caught.value.hint == "it is a training state"


def test_a_missing_file_names_the_nearest(path):
    with pytest.raises(MissingInput) as caught:
        read_header(path.with_name("modle.safetensors"))
    assert caught.value.hint == f"did you mean {path}?"
    with pytest.raises(MissingInput) as caught:
        load(path.parent)
    assert str(path) in caught.value.hint
    with pytest.raises(MissingInput) as caught:
        load(path.parent / "nowhere" / "x.safetensors")
    assert "there is no folder" in caught.value.hint


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("backbone", {"name": "mpl", "width": 4}, "did you mean 'mlp'?"),
        ("backbone", {"width": 4}, "needs a name"),
        ("backbone", {"name": "mlp", "hidden_dmi": 4}, "did you mean 'hidden_dim'?"),
        ("backbone", {"name": "mlp", "hidden_dim": 5, "depth": 1}, "tensor"),
        ("backbone", {"name": "mlp", "hidden_dim": 4, "depth": 2}, "lacks tensor"),
        ("backbone", {"name": "mlp", "hidden_dim": "wide"}, "must be a whole number, not 'wide'"),
        ("backbone", "mlp", "'backbone'"),
        ("num_classes", True, "'num_classes'"),
        ("kind", "diffusion", "'kind'"),
        ("images", "many", "'images'"),
        ("data", {"shape": [0, 8, 8]}, "'data.shape'"),
        ("format", 3, "format 3"),
        ("surprise", 1, "surprise"),
        ("preconditioning", {"sigma": 1}, "preconditioning"),
        ("preconditioning", {"time": "now"}, "unknown preconditioning time 'now'"),
    ],
)
def test_a_sealed_header_that_makes_no_sense_is_refused(path, field, value, says):
    rewrite(path, lambda document: document.update({field: value}))
    with pytest.raises(BadFile) as caught:
        load(path)
    assert says in f"{caught.value.message} ({caught.value.hint})"
    assert "\n" not in caught.value.message


def test_a_missing_field_is_refused(path):
    rewrite(path, lambda document: document.pop("backbone"))
    with pytest.raises(BadFile, match="backbone"):
        read_header(path)


def test_a_full_disk_keeps_the_old_checkpoint(path, model, header):
    old = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in range(0, len(old), 97):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(WriteFailed, match="File too large") as caught:
                save(path, model, header)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.hint.startswith("free some space")
        assert [path] == list(path.parent.iterdir())
        assert path.read_bytes() == old


def test_an_unwritable_place_is_a_failure_of_writing(path, model, header):
    for place in (path / "below", path.parent):
        with pytest.raises(WriteFailed, match="cannot write"):
            save(place, model, header)
