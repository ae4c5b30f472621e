"""TensorBoard's own reader finds in the event files what was logged."""

import io
import json
import math
import sys

import numpy as np
import pytest
from PIL import Image

from cmtool.cli import run
from cmtool.loggers import LoggedRun
from cmtool.loggers.tensorboard import tensorboard
from cmtool.options import registry

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
TINY = ["--set", "backbone.model_channels=16", "--set", "backbone.channel_mult=[1]", "--set", "backbone.num_blocks=1"]
SHORT = [
    "-d",
    "digits",
    *TINY,
    "--images",
    "128",
    "--batch",
    "32",
    "--warmup",
    "0",
    "--snapshots",
    "2",
    "--threads",
    "1",
]


def events(folder):
    found = accumulator.EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    return found.Reload()


def scalars(found):
    """{images: {name: value}}, without those of the clock."""
    lines = {}
    for name in found.Tags()["scalars"]:
        for event in found.Scalars(name):
            lines.setdefault(event.step, {})[name] = event.value
    return lines


def logged(folder):
    """The same of ``metrics.jsonl`` and ``timing.jsonl``."""
    lines = {}
    for name, prefix in (("metrics", ""), ("timing", "timing/")):
        for text in (folder / f"{name}.jsonl").read_text().splitlines():
            line = json.loads(text)
            figures = lines.setdefault(line.pop("images"), {})
            figures |= {f"{prefix}{key}": value for key, value in line.items()}
    return lines


def test_a_run_is_logged(tmp_path):
    folder = tmp_path / "run"
    words = ["train-ct", *SHORT, "--eval-every", "64", "--eval-n", "80", "--loggers", "tensorboard,jsonl", "-q"]
    assert run([*words, "--run-dir", str(folder)]) == 0
    found, ours, theirs = events(folder), logged(folder), scalars(events(folder))
    assert list(ours) == [32, 64, 96, 128] == sorted(theirs)
    for images, values in ours.items():
        for name, value in values.items():
            assert theirs[images][name] == pytest.approx(value, rel=1e-6), name  # event files hold float32
    assert "eval/FD-small/half-life-1500" in theirs[64]
    pictures = found.Images("samples")
    assert [picture.step for picture in pictures] == [64, 128]
    for picture in pictures:
        with Image.open(folder / "samples" / f"{picture.step:08d}.png") as ours:
            shown = Image.open(io.BytesIO(picture.encoded_image_string))
            assert np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(ours.convert("RGB")))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_was_logged_beyond_the_start_of_a_resumed_run_is_purged(tmp_path):
    for start, value in ((0, 1.0), (64, 2.0)):
        logger = tensorboard(LoggedRun(tmp_path, "train-ct", {}, start))
        for images in range(start + 32, 161 - start // 2, 32):
            logger.log(images, {"loss": value, "gap": math.nan})
        logger.close()
    found = scalars(events(tmp_path))
    assert {images: values["loss"] for images, values in found.items()} == {32: 1.0, 64: 1.0, 96: 2.0, 128: 2.0}
    assert all(math.isnan(values["gap"]) for values in found.values())


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_library_is_named_before_training(tmp_path, monkeypatch, capsys, name):
    for module in [key for key in sys.modules if key.partition(".")[0] == name or key == "torch.utils.tensorboard"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    assert run(["train-ct", *SHORT, "--loggers", name, "--run-dir", str(tmp_path / "run")]) == 69
    told = capsys.readouterr().err
    assert f"cmtool: error: the logger '{name}' needs the package {name}, which is not installed" in told
    assert f"pip install 'cmtool[{name}]'" in told
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_an_unknown_logger_and_an_unknown_option_are_refused(tmp_path, capsys):
    assert run(["train-ct", *SHORT, "--loggers", "tensorbord", "--run-dir", str(tmp_path / "run")]) == 2
    assert "did you mean 'tensorboard'?" in capsys.readouterr().err
    with pytest.raises(Exception, match="flush_sec"):
        registry.build("loggers", {"name": "tensorboard", "flush_sec": 3}, LoggedRun(tmp_path, "train-ct", {}))
