"""What the format ``openai`` reads off the tensors, what it asks for, and what the model then computes."""

import pytest
import torch
from adm_nets import SPEC, weights, write

import cmtool
from cmtool.backbones.adm import adm
from cmtool.core.discrete_processes import ddpm_sigmas
from cmtool.errors import BadFile, UsageError
from cmtool.files.checkpoint import digest, load, save
from cmtool.files.model_files import format_of
from cmtool.formats import openai as module
from cmtool.formats.openai_networks import HiddenOptions, read_adm_shape
from cmtool.options.hint_words import word_hint

CM = {"format": {"kind": "consistency", "side": 16}, "backbone": {"num_head_channels": 16}}
GUIDED = {"format": {"schedule": "cosine", "side": 16}, "backbone": {"num_head_channels": 16, "qkv": "legacy"}}
X, SIGMA = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 20.0])


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ({}, 0),
        ({}, 7),
        ({"channel_mult": (1,), "attn_resolutions": ()}, 0),
        ({"channel_mult": (1, 1, 2), "attn_resolutions": (16, 4), "num_blocks": 2}, 3),
        ({"channel_mult": (1, 2, 3), "attn_resolutions": (), "resblock_updown": False}, 0),
        (
            {
                "channel_mult": (0.5, 1),
                "model_channels": 64,
                "attn_resolutions": (16, 8),
                "num_blocks": 3,
                "use_scale_shift_norm": False,
            },
            0,
        ),
        ({"channel_mult": (1, 2, 1), "attn_resolutions": (8,), "resblock_updown": False, "conv_resample": False}, 0),
        ({"learn_variance": True, "qkv": "new", "resblock_updown": False, "attn_resolutions": (16, 8)}, 5),
    ],
)
def test_the_tensors_tell_the_architecture(tmp_path, options, classes):
    shown = read_adm_shape(tmp_path, weights(16, classes, **options))
    usual = {"use_scale_shift_norm": True, "resblock_updown": True, "learn_variance": False}
    wanted = {**SPEC, **usual, **options, "name": "adm"}
    found = {key: tuple(v) if isinstance(v, list) else v for key, v in shown.backbone.items()}
    found["attn_resolutions"] = tuple(shown.attn_resolutions(16))
    assert found.pop("qkv", "new") == wanted.pop("qkv", "flash")
    assert found == {key: value for key, value in wanted.items() if key != "num_head_channels"}
    assert (shown.channels, shown.classes, shown.guided) == (3, classes, options.get("qkv") == "new")


def test_a_consistency_model_has_its_boundary_and_a_score_model_has_none(file):
    student = cmtool.load(file, **CM)
    teacher = cmtool.load(file, **{**CM, "format": {"kind": "score", "side": 16}})
    assert (student.header.kind, teacher.header.kind) == ("consistency", "score")
    low = torch.full((2,), 0.002)
    with torch.no_grad():
        assert torch.equal(student(X, low), X)
        inside = teacher.model.net(X / (SIGMA**2 + 0.25).sqrt()[:, None, None, None], 250 * SIGMA.log())
        a, b = 0.25 / (SIGMA**2 + 0.25), 0.5 * SIGMA / (SIGMA**2 + 0.25).sqrt()
        expected = a[:, None, None, None] * X + b[:, None, None, None] * inside
        torch.testing.assert_close(teacher(X, SIGMA), expected, atol=1e-4, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_guided_diffusion_predicts_the_noise_of_numbered_steps(tmp_path, schedule):
    path = write(tmp_path / "net.pt", qkv="legacy", learn_variance=True, classes=4)
    model = cmtool.load(path, **{**GUIDED, "format": {"schedule": schedule, "side": 16}})
    ladder = ddpm_sigmas(1000, schedule)
    steps, labels = torch.tensor([500, 12]), torch.tensor([3, -1])
    sigma = ladder[steps].float()
    kept = 1 / (1 + sigma**2).sqrt()  # what the process leaves of an image
    noise = model.model.net.outputs(kept[:, None, None, None] * X, steps.float(), labels)
    assert noise.shape[1] == 6
    expected = X - sigma[:, None, None, None] * noise[:, :3]
    torch.testing.assert_close(model(X, sigma, labels), expected, atol=1e-3, rtol=1e-3)
    assert (model.header.kind, model.header.num_classes) == ("score", 4)
    assert model.header.sigma_min == pytest.approx(max(float(ladder[0]), 0.002))
    assert model.header.sigma_max == 80


def test_everything_that_is_missing_is_said_at_once(file, tmp_path):
    with pytest.raises(UsageError) as told:
        cmtool.load(file)
    assert told.value.message == f"{file} does not say backbone.num_head_channels, format.side, format.kind"
    assert f"{file}.yaml" in word_hint(told.value.hint)
    assert word_hint(told.value.hint).endswith(
        "--set backbone.num_head_channels=64 --set format.side=64 --set format.kind=consistency"
    )
    with pytest.raises(UsageError, match=r"does not say backbone.qkv, format.side, format.schedule$"):
        cmtool.load(write(tmp_path / "guided.pt", qkv="legacy"), backbone={"num_head_channels": 32})


@torch.no_grad()
def test_heads_that_are_counted_are_counted_on_the_way_up_too(tmp_path, file):
    """Their number shows nowhere, and a network of other ones computes something else from the same tensors."""
    with pytest.raises(UsageError, match=r"does not say backbone.num_heads_upsample$") as told:
        cmtool.load(file, format=CM["format"], backbone={"num_heads": 2})
    assert word_hint(told.value.hint).endswith("--set backbone.num_heads_upsample=2")
    nets = [
        cmtool.load(file, format=CM["format"], backbone={"num_heads": 2, "num_heads_upsample": n}).model.net
        for n in (2, 4)
    ]
    same, other = (net(X, SIGMA) for net in nets)
    assert (same - other).abs().max() > 1e-3
    middle = write(tmp_path / "middle.pt", attn_resolutions=())  # where the way up has no attention
    cmtool.load(middle, format=CM["format"], backbone={"num_heads": 2})
    with pytest.raises(UsageError, match="num_heads_upsample counts heads only where num_heads does"):
        cmtool.load(file, format=CM["format"], backbone={"num_head_channels": 16, "num_heads_upsample": 2})


def test_a_classifier_is_refused(tmp_path):
    path, net = tmp_path / "64x64_classifier.pt", weights(qkv="legacy")
    pool = {"positional_embedding": (64, 65), "qkv_proj.weight": (192, 64, 1), "c_proj.weight": (1000, 64, 1)}
    kept = {k: v for k, v in net.items() if not k.startswith(("output_blocks.", "out."))}
    torch.save(kept | {f"out.2.{name}": torch.zeros(shape) for name, shape in pool.items()}, path)
    with pytest.raises(BadFile, match="holds a network without a way up, as a classifier is"):
        cmtool.load(path)


def test_an_upsampler_is_refused(tmp_path):
    path = tmp_path / "64_256_upsampler.pt"
    torch.save(adm((6, 16, 16), 0, **SPEC, qkv="legacy").state_dict(), path)
    with pytest.raises(BadFile, match="takes 6 channels and gives 6, as an upsampler does"):
        cmtool.load(path, **GUIDED)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backbone": {"model_channels": 64}}, r"backbone.model_channels=64 contradicts .*, whose is 32"),
        (
            {"backbone": {"attn_resolutions": [16, 8]}},
            r"backbone.attn_resolutions=\[16, 8\] contradicts .*, whose is \[8\]",
        ),
        ({"backbone": {"qkv": "legacy"}}, "backbone.qkv=legacy contradicts"),
        ({"backbone": {"name": "unet"}}, "backbone.name=unet contradicts"),
        ({"backbone": {"num_head_channels": 48}}, "cannot cut 64 channels into heads 48 wide"),
        ({"backbone": {"hat": 1}}, "unknown option of network architecture 'adm' 'hat'"),
        ({"format": {**CM["format"], "schedule": "linear"}}, "format.schedule=linear contradicts"),
        ({"format": {**CM["format"], "kind": "consistent"}}, "option 'kind' of checkpoint format '\\w+' 'consistent'"),
        ({"format": {**CM["format"], "hat": 1}}, "unknown option of checkpoint format 'openai' 'hat'"),
        ({"format": {**CM["format"], "side": 9}}, "sides that are multiples of 2"),
        ({"format": {**CM["format"], "name": "openia"}}, "unknown checkpoint format 'openia'"),
    ],
)
def test_what_contradicts_the_file_is_named(file, given, message):
    backbone = {**CM["backbone"], **given.get("backbone", {})}
    with pytest.raises(UsageError, match=message):
        cmtool.load(file, format=given.get("format", CM["format"]), backbone=backbone)


def test_a_wrong_layout_of_guided_diffusion_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"backbone.qkv=flash contradicts .*, whose is new or legacy"):
        cmtool.load(write(tmp_path / "net.pt", qkv="new"), backbone={"qkv": "flash"})


def test_a_file_beside_it_says_the_same_and_the_caller_wins(file):
    beside = file.with_name("net.pt.yaml")
    beside.write_text("format: {kind: score, side: 16}\nbackbone: {num_head_channels: 16}\n")
    assert cmtool.load(file).header.kind == "score"
    assert cmtool.load(file, format={"kind": "consistency"}).header.kind == "consistency"
    beside.write_text("backbone: {num_head_channels: 16}\nkind: score\n")
    with pytest.raises(UsageError, match=r"'kind' in .*net.pt.yaml, line 2, is not what stands beside a model"):
        cmtool.load(file)


@pytest.fixture
def as_published(monkeypatch):
    """As if the tiny network had been published under the names that were."""
    monkeypatch.setitem(
        module.ARCHITECTURES, (False, 32, 1, (1, 2), (1,)), HiddenOptions(16, {"num_head_channels": 16})
    )


def test_of_a_published_file_nothing_need_be_said(tmp_path, as_published):
    header = cmtool.load(write(tmp_path / "cd_imagenet64_l2.pt", classes=4)).header
    assert (header.kind, header.shape, header.num_classes) == ("consistency", (3, 16, 16), 4)
    step = (80 ** (1 / 7) + 22 / 39 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert header.sigmas == pytest.approx([step])
    assert (header.licence, header.method) == ("MIT", "openai cd_imagenet64_l2")
    assert cmtool.load(write(tmp_path / "edm_cat256_ema.pt")).header.kind == "score"
    with pytest.raises(UsageError, match=r"does not say format.kind$"):
        cmtool.load(write(tmp_path / "ema_0.9999_600000.pt"))
    heads = cmtool.load(
        tmp_path / "cd_imagenet64_l2.pt", backbone={"num_heads": 2, "num_heads_upsample": 2}
    ).header.backbone
    assert "num_head_channels" not in heads


def test_a_name_counts_for_nothing_where_the_tensors_are_others(tmp_path):
    with pytest.raises(UsageError, match=r"does not say .*format.kind"):
        cmtool.load(write(tmp_path / "cd_imagenet64_l2.pt"))


def test_what_is_saved_as_ours_is_the_same_model(file, tmp_path):
    model = cmtool.load(file, **CM)
    save(tmp_path / "ours.safetensors", model.model, model.header)
    ours = load(tmp_path / "ours.safetensors")
    with torch.no_grad():
        assert torch.equal(ours(X, SIGMA), model(X, SIGMA))
    assert model.header.sha256 == digest(file)
    with pytest.raises(UsageError, match="needs no 'format'"):
        cmtool.load(tmp_path / "ours.safetensors", format={"side": 16})


def test_weights_in_float16_come_as_float32(file, tmp_path):
    short = {name: value.half() for name, value in weights().items()}
    torch.save(short, tmp_path / "short.pt")
    net = cmtool.load(tmp_path / "short.pt", **CM).model.net
    assert all(torch.equal(value, short[name].float()) for name, value in net.state_dict().items())


def changed(name, change):
    def make(tensors):
        return {**tensors, name: change(tensors[name])}

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "out.2.weight"}, "no whole ADM network: 'out.2.weight'"),
        (lambda t: {k: v for k, v in t.items() if k != "out.2.bias"}, "lacks tensor 'out.2.bias'"),
        (lambda t: {**t, "hat": torch.zeros(1)}, "an unknown tensor 'hat'"),
        (changed("out.2.weight", lambda v: v[:, :, 0]), "tensor 'out.2.weight' is"),
        (changed("out.2.weight", lambda v: v[:2]), "takes 3 channels and gives 2, as an upsampler does"),
        (changed("time_embed.0.weight", lambda v: v[:, :0]), "no whole ADM network"),
        (changed("time_embed.0.weight", lambda v: v[0]), "no whole ADM network"),
        (changed("out.2.bias", lambda v: v.long()), "more than named tensors"),
        (changed("out.2.bias", lambda v: v.to_sparse()), "more than named tensors"),
        (changed("out.2.bias", lambda v: [1, 2]), "more than named tensors"),
        (changed("out.2.bias", lambda v: v[:1].expand(3, 1 << 40)), "larger than its values"),
        (lambda t: {f"model.diffusion_model.{k}": v for k, v in t.items()}, "a network of latent diffusion"),
    ],
)
def test_files_that_make_no_network(tmp_path, make, message):
    torch.save(make(weights()), tmp_path / "net.pt")
    with pytest.raises(BadFile, match=message):
        cmtool.load(tmp_path / "net.pt", **CM)


def test_networks_of_other_programs_are_left_to_others(tmp_path):
    path = tmp_path / "second.pt"
    torch.save({key.replace("time_embed", "time_embed_s"): value for key, value in weights().items()}, path)
    assert format_of(path) is None
    with pytest.raises(BadFile, match="no model in a format that cmtool reads"):
        cmtool.load(path)
