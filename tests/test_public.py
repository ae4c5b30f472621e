"""The public functions: those of the commands, without files, under the same names of options."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch

import cmtool
from cmtool import settings
from cmtool.errors import UsageError
from cmtool.options.fields import option_fields
from cmtool.pipelines.training import GROUPS

# Options about files, the console and the machine, which a program has itself.
FILES = {"overwrite", "output", "grid", "show", "report", "chart", "sheet", "format", "backbone", "threads", "shard"}
FILES |= {"input", "source", "ref", "model", "truth", "make_ref", "every", "snapshots", "ema_snapshots", "ema_dtype"}
FILES |= {"run_dir", "resume", "dry_run", "save_every", "keep", "allow_change", "reproduce", "loggers", "eval"}
FILES |= {f"eval_{what}" for what in ("every", "features", "n", "ref", "ema", "steps", "solver")}
DRAWING = set(option_fields(settings.SampleOptions)) - {"seed", "n", "batch", "device"}  # ``score`` takes drawn images


def keywords(function):
    return {p.name.rstrip("_") for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("function", "classes", "own"),
    [
        (cmtool.sample, [settings.SampleOptions], set()),
        (cmtool.edit, [settings.EditOptions], {"operator"}),
        (cmtool.score, [settings.FidOptions], DRAWING),
        (cmtool.train, GROUPS.values(), {"method", "data"}),
    ],
)
def test_every_option_of_the_command_is_a_keyword(function, classes, own):
    options = set().union(*(option_fields(cls) for cls in classes))
    backbone = {"backbone"} if function is cmtool.train else set()  # of the other commands it is of foreign files
    assert keywords(function) == options - own - FILES | backbone


def test_the_public_names_are_annotated_documented_and_lazy():
    assert set(cmtool.__all__) <= set(dir(cmtool))
    for name in set(cmtool.__all__) - {"__version__"}:
        function = getattr(cmtool, name)
        signature = inspect.signature(function)
        assert "UsageError" in function.__doc__
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(p.annotation is not p.empty for p in signature.parameters.values())
    code = "import cmtool, sys; assert 'torch' not in sys.modules; cmtool.sample; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        cmtool.nope  # noqa: B018


def test_samples_are_those_of_the_command(cm_samples):
    model = cmtool.load("shapes-consistency")
    batches = list(cmtool.sample(model, seeds="3,5-8", steps=2, batch=2))
    assert [seed for batch in batches for seed in batch.seeds] == [3, 5, 6, 7, 8]
    images = torch.cat([batch.images for batch in batches])
    assert np.array_equal(images.numpy(), cm_samples("3,5-8", "--steps", "2"))
    labels = torch.cat([batch.labels for batch in batches])
    assert labels.tolist() == [3, 5, 6, 7, 8]
    again = next(cmtool.sample("shapes-consistency", seeds=[5], steps=2, class_=labels[1].item())).images
    assert torch.equal(again[0], images[1])


@pytest.fixture
def cm_samples(tmp_path):
    """What ``cmtool sample`` writes, uint8 [N, C, H, W]."""
    from cmtool.cli import run

    def call(seeds, *words):
        path = str(tmp_path / "x.npz")
        assert run(["sample", "-m", "shapes-consistency", "--seeds", seeds, "-o", path, "-q", *words]) == 0
        with np.load(path) as archive:
            return archive["arr_0"].transpose(0, 3, 1, 2)

    return call


def test_what_is_wrong_is_said_at_once_and_names_the_argument():
    model = cmtool.load("shapes-consistency")
    with pytest.raises(UsageError, match=r"^steps must be at least 1, not 0$"):
        cmtool.sample(model, steps=0)
    with pytest.raises(UsageError, match="does nothing while the weight of guidance is 1"):
        cmtool.sample(model, guidance_interval=(0.2, 5))
    with pytest.raises(UsageError, match="takes no factor"):
        cmtool.edit("colorize", np.zeros((3, 32, 32), np.uint8), model, factor=2)
    with pytest.raises(UsageError, match=r"a picture is uint8 \[1 or 3, H, W\]"):
        next(cmtool.edit("colorize", np.zeros((32, 32), np.uint8), model))
    with pytest.raises(UsageError, match="unknown training method 'ectt'") as caught:
        cmtool.train("ectt", "digits")
    assert caught.value.hint == "did you mean 'ect'?"
    with pytest.raises(UsageError, match="distill takes the network of its teacher"):
        cmtool.train("ecd", "digits", backbone="mlp")


def test_an_edit_keeps_what_is_known():
    model = cmtool.load("shapes-consistency")
    (image,) = next(cmtool.sample(model, n=1)).images
    mask = torch.zeros(1, 32, 32, dtype=torch.uint8)
    mask[:, 8:24, 8:24] = 255
    results = list(cmtool.edit("inpaint", [image, image.numpy()], model, mask=mask, steps=2, variants=2, class_="1"))
    assert [edited.name for edited in results] == ["image 0", "image 1"]
    for edited in results:
        assert list(edited.seeds) == [0, 1] and edited.label == 1 and edited.known_error == 0
        for result in edited.images:
            assert torch.equal(result[:, mask[0] == 0], image[:, mask[0] == 0])
    first, second = results
    assert all(torch.equal(a, b) for a, b in zip(first.images, second.images, strict=True))
    assert not torch.equal(*first.images)


def test_scores_of_tensors_batches_and_names_agree():
    digits = next(iter([torch.stack([image for image, _ in slice_of("digits", 300)])]))
    whole = cmtool.score(digits, "digits[0::2]", metrics=("fid", {"name": "kid", "subsets": 3}), features="small")
    pieces = cmtool.score(digits.split(70), "digits[0::2]", metrics=["fid"], features="small")
    named = cmtool.score("digits[0:300]", "digits[0::2]", features="small")
    assert whole["FD-small"] == pieces["FD-small"] == named.value > 0
    assert (whole.scores[1].metric, whole.scores[1].details["subsets"]) == ("KD-small", 3)
    assert (whole.samples.n, named.reference.n) == (300, 899)
    with pytest.raises(UsageError, match="unknown metric 'fids'"):
        cmtool.score(digits, "digits", metrics=("fids",), features="small")


def slice_of(name, n):
    from cmtool.options import registry

    dataset = registry.build("datasets", name, None)
    return [dataset[i] for i in range(n)]


def test_training_is_that_of_the_command(tmp_path):
    from cmtool.cli import run

    small = ["--backbone", "mlp", "--set", "backbone.hidden_dim=16", "-n", "512", "-b", "128", "--seed", "3"]
    assert run(["train-score", "-d", "gaussians", *small, "--run-dir", str(tmp_path / "run"), "-q"]) == 0
    stored = cmtool.load(tmp_path / "run")
    backbone = {"name": "mlp", "hidden_dim": 16}
    reports = list(cmtool.train("edm", "gaussians", images=512, batch=128, seed=3, backbone=backbone))
    assert [report.images for report in reports] == [128, 256, 384, 512] and all(report.finite for report in reports)
    ours, theirs = reports[-1].ema.model.state_dict(), stored.model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert reports[-1].ema.header.kind == stored.header.kind and reports[-1].ema.header.images == 512
    points = next(cmtool.sample(reports[-1].ema, n=8)).images
    assert points.shape == (8, 2) and points.isfinite().all()
    (report, *_) = cmtool.train("cd", "gaussians", teacher=reports[-1].ema, images=128, batch=128)
    assert report.model.header.kind == "consistency" and report.model.header.backbone["hidden_dim"] == 16


def test_a_data_set_itself_can_be_learned_from():
    from cmtool.datasets.toy import gaussians

    (report,) = cmtool.train("ect", gaussians(None), images=64, batch=64, backbone={"name": "mlp", "hidden_dim": 16})
    assert report.ema.header.data["name"] == type(gaussians(None)).__name__
    assert "data" not in report.ema.header.options
