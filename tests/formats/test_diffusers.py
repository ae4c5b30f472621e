"""Folders of diffusers: what is written comes back bit for bit, and what cannot be is said in a sentence."""

import json
import shutil

import pytest
import torch
from diffusers_nets import change, tiny
from safetensors.torch import load_file, save_file

import cmtool
from cmtool.core.denoiser import Preconditioning
from cmtool.errors import BadFile, MissingInput, UsageError
from cmtool.files.checkpoint import digest, load, save
from cmtool.files.model_files import format_of, parent_record, writer
from cmtool.formats.diffusers import diffusers
from cmtool.formats.diffusers_writer import write_diffusers

X, SIGMA = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 20.0])
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    model = tiny(classes=3)
    write_diffusers(tmp_path / "pipe", model.model, model.header)
    return tmp_path / "pipe"


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "classes", "options"),
    [
        ("consistency", 3, {}),
        ("consistency", 0, {"channel_mult": (1, 1, 2), "attention": (0, 2), "num_blocks": 2, "scale_shift": False}),
        ("score", 0, {"updown": False, "attention": (), "dropout": 0.1}),
        ("consistency", 0, {"channel_mult": (1,), "attention": (0,), "heads": 1}),
        ("score", 5, {"channel_mult": (1, 1), "attention": (0, 1), "heads": 2, "qkv": "new"}),
    ],
)
def test_a_model_comes_back_bit_for_bit(tmp_path, kind, classes, options):
    model = tiny(kind, classes, **options)
    save(tmp_path / "ours.safetensors", model.model, model.header)
    written = write_diffusers(tmp_path / "theirs", model.model, model.header)
    back = cmtool.load(tmp_path / "theirs")
    again = writer("cmtool")(tmp_path / "again.safetensors", back.model, back.header, None)
    ours, found = load(tmp_path / "ours.safetensors"), load(tmp_path / "again.safetensors")
    for name, value in ours.model.net.state_dict().items():
        assert torch.equal(found.model.net.state_dict()[name].reshape(value.shape), value), name
    labels = torch.tensor([classes - 1, -1]) if classes else None
    torch.testing.assert_close(found(X, SIGMA, labels), ours(X, SIGMA, labels), rtol=0, atol=1e-6)
    assert back.header.sha256 == written.sha256 == parent_record(tmp_path / "theirs")["sha256"]
    kept = ("kind", "data", "num_classes", "sigma_min", "sigma_max", "sigmas", "method", "images", "parents", "licence")
    for key in (*kept, "preconditioning"):
        assert getattr(again, key) == getattr(load(tmp_path / "ours.safetensors").header, key), key


def test_without_our_header_a_pipeline_says_enough_and_a_network_alone_does_not(folder):
    plain = load_file(folder / "unet" / WEIGHTS)
    save_file(plain, folder / "unet" / WEIGHTS, metadata={"format": "pt"})
    change(folder / "scheduler" / "scheduler_config.json", sigma_max=50.0, sigma_data=0.4)
    model = cmtool.load(folder)
    assert (model.header.kind, model.header.sigma_max, model.header.method) == ("consistency", 50.0, "diffusers")
    assert model.model.preconditioning == Preconditioning(0.4, 0.002, "log-1000")
    assert torch.equal(model(X, torch.full((2,), 0.002)), X)
    change(folder / "unet" / "config.json", sample_size=None)
    with pytest.raises(UsageError, match=r"unet does not say format.side$"):
        cmtool.load(folder / "unet")
    unet = (folder / "unet").rename(folder.parent / "alone")
    with pytest.raises(UsageError, match=r"alone does not say format.kind, format.side$"):
        cmtool.load(unet)
    alone = cmtool.load(unet, format={"kind": "score", "side": 16, "sigma_data": 0.3})
    assert alone.model.preconditioning == Preconditioning(0.3, 0.0, "log-1000")
    assert "nothing says what the network predicts" in alone.remarks[0]
    steps = cmtool.load(unet, format={"side": 16, "schedule": "cosine"})
    assert (steps.header.kind, steps.model.preconditioning) == ("score", Preconditioning.named("ddpm-cosine-1000"))
    assert steps.remarks == ("the network predicts noise of 1,000 cosine steps",)
    with pytest.raises(UsageError, match=r"format.kind=consistency contradicts"):
        cmtool.load(unet, format={"side": 16, "schedule": "linear", "kind": "consistency"})
    torch.save(plain, unet / "diffusion_pytorch_model.bin")
    (unet / WEIGHTS).unlink()
    older = cmtool.load(unet, format={"kind": "score", "side": 16})
    assert all(torch.equal(a, b) for a, b in zip(older.model.parameters(), alone.model.parameters(), strict=True))
    assert older.header.sha256 == digest(unet / "diffusion_pytorch_model.bin")


def test_a_file_of_the_folder_leads_to_it(folder):
    expected = cmtool.load(folder)
    for name in ("model_index.json", "unet/config.json", f"unet/{WEIGHTS}"):
        assert format_of(folder / name) == "diffusers"
        found = cmtool.load(folder / name)
        assert found.header.sha256 == expected.header.sha256
        assert (found.header.kind, found.header.sigma_max) == ("consistency", 80.0)
    half = {name: value.half() for name, value in load_file(folder / "unet" / WEIGHTS).items()}
    variant = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    save_file(half, variant)
    assert cmtool.load(variant).header.sha256 == digest(variant) == parent_record(variant)["sha256"]
    shutil.copy(variant, folder.parent / WEIGHTS)
    with pytest.raises(BadFile, match="a safetensors file, but not a checkpoint of cmtool"):
        cmtool.load(folder.parent / WEIGHTS)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"preconditioning": Preconditioning(0.5, 0.002)}, "preconditioning.time=log of a consistency model"),
        ({"preconditioning": Preconditioning(0.5, 0.0, "log-1000")}, "preconditioning.sigma_min=0.0 of a consistency"),
        ({"qkv": "legacy"}, "backbone.qkv=legacy"),
        ({"learn_variance": True}, "backbone.learn_variance=True"),
        ({"model_channels": 64, "channel_mult": (0.5, 1)}, r"backbone.channel_mult=\(0.5, 1"),
        ({"channel_mult": (1, 2), "attention": (0, 1), "heads": 2}, "backbone.heads=2"),
    ],
)
def test_what_has_no_counterpart_is_said(tmp_path, about, message):
    model = tiny(**about)
    with pytest.raises(UsageError, match=f"cannot be written: {message}"):
        write_diffusers(tmp_path / "out", model.model, model.header)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("place", "values", "message"),
    [
        ("unet/config.json", {"act_fn": "mish"}, "has act_fn=mish, for which"),
        ("unet/config.json", {"attn_norm_num_groups": None}, "has attn_norm_num_groups=None"),
        ("unet/config.json", {"block_out_channels": [32]}, "has down_block_types="),
        ("unet/config.json", {"block_out_channels": [32, 10**12]}, "has block_out_channels=1000000000000"),
        ("unet/config.json", {"block_out_channels": [48, 64]}, "a multiple of 32 channels"),
        (
            "unet/config.json",
            {"block_out_channels": [64, 64]},
            "does not fit its own network: it has an unknown tensor",
        ),
        ("unet/config.json", {"layers_per_block": 10**9}, "has not the 1000000000 blocks"),
        ("unet/config.json", {"downsample_type": []}, r"has downsample_type=\[\]"),
        ("unet/config.json", {"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "has up_block_types="),
        ("unet/config.json", {"resnet_time_scale_shift": []}, r"has resnet_time_scale_shift=\[\]"),
        ("unet/config.json", {"num_class_embeds": None}, "has an unknown tensor 'class_embedding.weight'|'label_emb"),
        ("unet/config.json", {"out_channels": 6}, "has out_channels=6"),
        ("unet/config.json", {"_class_name": "AutoencoderKL"}, "is of a AutoencoderKL, and cmtool reads there only"),
        ("model_index.json", {"_class_name": "LDMPipeline"}, "LDMPipeline, and cmtool reads there only Consistency"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "DDPMScheduler"},
            "DDPMScheduler, and cmtool reads there only",
        ),
        ("scheduler/scheduler_config.json", {"sigma_min": "0.1"}, "has noise levels that cannot be: 0.1, 80.0, 0.5"),
        ("scheduler/scheduler_config.json", {"sigma_max": float("nan")}, "has noise levels that cannot be"),
    ],
)
def test_other_networks_and_nonsense_are_named(folder, place, values, message):
    change(folder / place, **values)
    with pytest.raises(BadFile, match=message):
        cmtool.load(folder)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"format": {"sigma_max": 40.0}}, "format.sigma_max=40.0 contradicts .*, whose is 80.0"),
        ({"format": {"kind": "score"}}, "format.kind=score contradicts .*, whose is consistency"),
        ({"format": {"kind": "consistent"}}, "unknown value of option 'kind' of checkpoint format '\\w+' 'consistent'"),
        ({"backbone": {"head_width": 8}}, "backbone.head_width=8 contradicts .*, whose is 16"),
        ({"backbone": {"heads": 2}}, "backbone.heads=2 contradicts"),
    ],
)
def test_options_that_contradict_the_folder_are_refused(folder, said, message):
    with pytest.raises(UsageError, match=message):
        cmtool.load(folder, **said)
    model = cmtool.load(folder, backbone={"head_width": 16, "dropout": 0.3}, format={"sigma_min": 0.002})
    assert model.header.backbone["dropout"] == 0.3


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"a"', "\ufeff{}", "{" + " " * (1 << 20) + "}"])
def test_documents_that_are_none(folder, text):
    for place in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        whole = (folder / place).read_text()
        (folder / place).write_text(text)
        with pytest.raises(BadFile):
            diffusers.read(folder, {})
        (folder / place).write_text(whole)
    (folder / "model_index.json").write_text(text)
    assert format_of(folder) is None


@pytest.mark.parametrize("place", ["unet/config.json", f"unet/{WEIGHTS}", "scheduler/scheduler_config.json"])
def test_what_is_missing_is_named(folder, place):
    (folder / place).unlink()
    with pytest.raises(MissingInput, match=place):
        cmtool.load(folder)


def test_damaged_weights_are_refused(folder):
    path, draw = folder / "unet" / WEIGHTS, torch.Generator().manual_seed(0)
    whole = path.read_bytes()
    for at in torch.randint(len(whole), (40,), generator=draw).tolist() + list(range(8)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BadFile):
            cmtool.load(folder)
    path.write_bytes(whole[:-100])
    with pytest.raises(BadFile):
        cmtool.load(folder)


def test_queries_and_keys_that_do_not_fit_are_refused(folder):
    path = folder / "unet" / WEIGHTS
    for other in (torch.zeros(64, 32), torch.zeros(64), torch.zeros(64, 64, dtype=torch.int64)):
        shutil.copy(path, path.with_suffix(".whole"))
        save_file(load_file(path) | {"mid_block.attentions.0.to_q.weight": other}, path)
        with pytest.raises(BadFile):
            cmtool.load(folder)
        path.with_suffix(".whole").replace(path)


def test_precision_and_the_published_form_of_the_documents(tmp_path):
    model = tiny(classes=1000)
    write_diffusers(tmp_path / "half", model.model, model.header, torch.float16)
    assert {value.dtype for value in load_file(tmp_path / "half" / "unet" / WEIGHTS).values()} == {torch.float16}
    config = json.loads((tmp_path / "half" / "unet" / "config.json").read_text())
    assert config["down_block_types"] == ["ResnetDownsampleBlock2D", "AttnDownBlock2D"]
    assert config["up_block_types"] == ["AttnUpBlock2D", "ResnetUpsampleBlock2D"]
    assert (config["num_class_embeds"], config["attn_norm_num_groups"], config["attention_head_dim"]) == (1000, 32, 16)
    assert json.loads((tmp_path / "half" / "model_index.json").read_text())["unet"] == ["diffusers", "UNet2DModel"]
