"""What we write for diffusers, in diffusers itself: it loads, and the same noise gives the same image."""

import inspect

import pytest
import torch
from diffusers_nets import tiny

import cmtool
from cmtool.core.sampling.loops import clip_denoised, multistep
from cmtool.errors import BadFile
from cmtool.formats.diffusers_config import DEFAULTS, FIXED
from cmtool.formats.diffusers_writer import write_diffusers

diffusers = pytest.importorskip("diffusers")
X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize(
    ("classes", "options"),
    [
        (4, {}),
        (0, {"updown": False, "scale_shift": False, "channel_mult": (1, 2, 2), "attention": (0, 2), "heads": 1}),
    ],
)
def test_a_pipeline_gives_the_same_image(tmp_path, classes, options):
    model = tiny(classes=classes, **options)
    write_diffusers(tmp_path, model.model, model.header)
    pipeline = diffusers.ConsistencyModelPipeline.from_pretrained(tmp_path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    labels = torch.tensor([1, 3]) if classes else None

    sigma = torch.tensor([80.0, 0.6])
    scaled = X / (sigma**2 + 0.25).sqrt()[:, None, None, None]
    theirs = pipeline.unet(scaled, 250 * sigma.log(), class_labels=labels).sample
    torch.testing.assert_close(model.model.raw_output(X, sigma, labels), theirs, rtol=1e-5, atol=3e-5)

    said = {"class_labels": labels.tolist()} if classes else {}
    images = pipeline(batch_size=2, num_inference_steps=1, latents=X, output_type="pt", **said).images
    *_, ours = multistep(clip_denoised(model), 80 * X, torch.tensor([80.0]), None, labels, sigma_min=0.002)
    torch.testing.assert_close(ours / 2 + 0.5, images, rtol=1e-5, atol=3e-5)


def test_a_network_alone_loads_with_every_weight(tmp_path):
    model = tiny("score")
    write_diffusers(tmp_path, model.model, model.header)
    net, told = diffusers.UNet2DModel.from_pretrained(tmp_path, local_files_only=True, output_loading_info=True)
    assert not any(told.values())
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in model.model.net.parameters())


def test_what_a_config_leaves_out_is_what_diffusers_takes():
    theirs = inspect.signature(diffusers.UNet2DModel.__init__).parameters
    ours = {**DEFAULTS, **{key: meant[0] for key, meant in FIXED.items()}}
    found = {key: list(p.default) if isinstance(p.default, tuple) else p.default for key, p in theirs.items()}
    assert found.items() >= ours.items()


@torch.no_grad()
@pytest.mark.parametrize("place", ["", "unet"])
@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        ("DDPMScheduler", {}),
        ("DDIMScheduler", {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}),
        ("PNDMScheduler", {"num_train_timesteps": 200, "beta_start": 0.001, "beta_end": 0.05}),
        ("DDPMScheduler", {"prediction_type": "v_prediction"}),
    ],
)
def test_a_network_of_numbered_steps_predicts_what_its_scheduler_says(tmp_path, place, scheduler, options):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    net = diffusers.UNet2DModel(16, layers_per_block=1, block_out_channels=(32, 32), **blocks)
    made = getattr(diffusers, scheduler)(**options)
    diffusers.DDPMPipeline(net, diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    made.save_pretrained(tmp_path / "scheduler")
    model = cmtool.load(tmp_path / place)
    assert (model.header.kind, model.header.method) == ("score", "diffusers")
    predicted = "v" if "prediction_type" in options else "noise"
    count = options.get("num_train_timesteps", 1000)
    assert f"the network predicts {predicted} of {count:,}" in model.remarks[0]
    kept = made.alphas_cumprod.double()
    for step in (0, 57, len(kept) - 1):
        alpha, sigma = kept[step].sqrt(), ((1 - kept[step]) / kept[step]).sqrt()
        found = net(X, torch.tensor(step)).sample.double()
        x, z = (alpha * X - (1 - kept[step]).sqrt() * found, None) if "prediction_type" in options else (None, found)
        expected = x if x is not None else (X - (1 - kept[step]).sqrt() * z) / alpha
        seen = model((X / alpha).float(), sigma.float().expand(2), None)
        torch.testing.assert_close(seen.double(), expected, rtol=2e-3, atol=2e-3 * float(1 + sigma))
    assert model.header.sigma_max == pytest.approx(float(sigma), rel=1e-4)


@pytest.mark.parametrize(
    ("scheduler", "options", "message"),
    [
        ("DDPMScheduler", {"prediction_type": "sample"}, "has prediction_type=sample, for which"),
        ("DDIMScheduler", {"beta_schedule": "scaled_linear"}, "has beta_schedule=scaled_linear"),
        ("DDIMScheduler", {"rescale_betas_zero_snr": True}, "has rescale_betas_zero_snr=True"),
        ("DDPMScheduler", {"trained_betas": [0.1] * 30}, "has trained_betas="),
        ("ScoreSdeVeScheduler", {}, "has _class_name=ScoreSdeVeScheduler"),
    ],
)
def test_schedulers_without_a_counterpart_are_named(tmp_path, scheduler, options, message):
    write_diffusers(tmp_path / "unet", tiny("score").model, tiny("score").header)
    getattr(diffusers, scheduler)(**options).save_pretrained(tmp_path / "scheduler")
    with pytest.raises(BadFile, match=message):
        cmtool.load(tmp_path / "unet")
