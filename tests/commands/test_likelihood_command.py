"""Bits per dimension from the command line, where the answer is known."""

import json
import math

import pytest
import torch
from tiny import random_model

from cmtool.core.denoiser import Denoiser, Preconditioning
from cmtool.core.likelihood import dequantize
from cmtool.core.noise import Noise
from cmtool.files.checkpoint import save
from cmtool.files.header import Header
from cmtool.options import registry

VARIANCE = 0.25


@pytest.fixture
def gaussian(tmp_path):
    """A network that answers 0 behind EDM's preconditioning is the exact denoiser of N(0, 1/4)."""
    spec = {"name": "unet", "model_channels": 16, "channel_mult": [1], "num_blocks": 1}
    net = registry.build("backbones", spec, (1, 8, 8), 0)
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    path, data = tmp_path / "g.safetensors", {"name": "none", "shape": [1, 8, 8], "classes": [], "notice": ""}
    save(path, Denoiser(net, Preconditioning(0.5)), Header("score", spec, {}, data, 0, 0.002, 80.0))
    return path


def analytic(numbers):
    """``-log2 N(x; 0, 1/4 + 0.002^2)`` of the dequantised digits, in bits for each of the 64 values."""
    digits = registry.build("datasets", "digits", None)
    images = torch.stack([torch.as_tensor(digits[i][0]) for i in numbers])
    x, variance = dequantize(images, Noise(numbers)), VARIANCE + 0.002**2
    nats = (x**2 / variance + math.log(2 * math.pi * variance)).flatten(1).mean(1) / 2
    return nats / math.log(2) - math.log2(1 / 127.5)


def test_the_bits_of_a_gaussian_are_the_analytic_ones(well, gaussian):
    """Its Jacobian is diagonal, so that one Rademacher probe is exact."""
    told = json.loads(well("likelihood", "-m", gaussian, "--data", "digits", "-n", "20", "--json"))
    bits = analytic(range(20))
    assert told["value"] == pytest.approx(float(bits.mean()), abs=2e-4)
    assert told["standard_error"] == pytest.approx(float(bits.std()) / math.sqrt(20), rel=0.01)
    assert (told["nfe"], told["images"], told["probes"]) == (256, 20, 1)


def test_every_axis_and_gaussian_probes_say_the_same(well, gaussian):
    def value(*words):
        line = ["likelihood", "-m", gaussian, "--data", "digits", "-n", "16", "--steps", "4", "--json"]
        return json.loads(well(*line, *words))["value"]

    assert value("--hutchinson-probes", "0") == pytest.approx(value(), rel=1e-9)
    assert value("--hutchinson-probes", "20", "--probe", "gaussian") == pytest.approx(value(), abs=0.15)


def test_no_image_depends_on_how_many_there_are_or_on_threads(well, gaussian):
    def value(*words):
        return json.loads(well("likelihood", "-m", gaussian, "--data", "digits", "--json", "--steps", "3", *words))[
            "value"
        ]

    few, more = value("-n", "1"), value("-n", "17", "--threads", "1")
    assert value("--data", "digits[0:1]") == few
    assert value("-n", "17", "--threads", "2") == more != few


def test_what_cannot_be_is_refused(cm, gaussian, tmp_path):
    student = random_model(tmp_path / "c.safetensors", (1, 8, 8))
    told = cm("likelihood", "-m", student, "--data", "digits")
    assert (told.code, "cmtool likelihood -m TEACHER" in told.err) == (2, True)
    told = cm("likelihood", "-m", gaussian, "--data", "shapes")
    assert told.code == 2
    assert "1x8x8" in told.err
    told = cm("likelihood", "-m", gaussian)
    assert "unknown data set 'none'" in told.err
