"""Presets load, set only options that exist, and the published ones carry their facts; some wait for their plugins."""

import math

import pytest

from cmtool import presets
from cmtool.commands.information.presets import TRAINING_COMMANDS, missing_for_preset, preset_facts
from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.options.fields import option_fields
from cmtool.options.load import load_options
from cmtool.options.sources import preset_commands

NAMES = presets.names()
PUBLISHED = [name for name in NAMES if "source" in preset_facts(name)]
PAIRS = [(name, command) for name in NAMES for command in preset_commands(name)]
TEACHER = {"teacher": "t.safetensors"}
SETS = ("cifar10", "imagenet64", "bedroom256", "cat256")


def loaded(name, command):
    return load_options(
        TRAINING_COMMANDS[command], TEACHER if command == "distill" else {}, preset=name, environment={}
    )


@pytest.mark.parametrize(("name", "command"), PAIRS)
def test_a_preset_loads_or_names_the_plugin_that_is_not_there(name, command):
    if absent := missing_for_preset(name):
        with pytest.raises(UsageError) as caught:
            loaded(name, command)
        assert any(caught.value.message == f"unknown {plugin}" for plugin in absent)
        return
    options = loaded(name, command)
    assert options.images == preset_facts(name)["cost"]["images"]
    assert options.optimizer.get("name") in registry.names("optimizers")


@pytest.mark.parametrize(("name", "command"), PAIRS)
def test_options_of_plugins_exist_and_have_the_right_type(name, command, monkeypatch):
    """Also of presets that wait for another plugin, for each plugin that is there."""
    monkeypatch.setattr("cmtool.options.load._in_registry", lambda d, spec: spec)
    options = loaded(name, command)
    for d in option_fields(type(options)).values():
        value = getattr(options, d.name)
        for spec in value if isinstance(value, tuple) else (value,):
            if not d.group or not spec or d.key == "data" or spec.name not in registry.names(d.group):
                continue
            factory = registry.get(d.group, spec.name)
            allowed = registry.options(factory)
            assert set(spec) - {"name"} <= set(allowed), f"{d.key} {spec.name} has {', '.join(allowed)}"
            for key in set(spec) - {"name"}:
                registry.typed(factory, key, key, spec[key])


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_it_is_for(name):
    assert preset_facts(name)["about"].endswith(".")
    assert preset_facts(name)["command"] and set(preset_facts(name)["command"]) <= set(TRAINING_COMMANDS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_one_carries_source_cost_and_fid(name):
    found = preset_facts(name)
    assert name.split("-")[0] in SETS
    assert "arXiv" in found["source"]
    assert found["cost"]["counted"]
    assert set(found.get("recalled", [])) <= set(found["fid"])
    assert all(n >= 1 and 1 < fid < 30 for n, fid in found["fid"].items())
    if "gflop" in found["cost"]:
        assert found["cost"]["pflop"] == pytest.approx(
            found["cost"]["images"] * found["cost"]["gflop"] * 1e9 / 1e15, abs=0.1
        )


def test_cost_is_made_of_the_counted_passes():
    """Forward, backward twice that, a target's forward, Heun's two of the teacher; LPIPS is two and a backward."""
    cifar, imagenet, lsun = 42.4, 219.3, 2239
    small, large = 30.7, 40.1  # VGG16 at 224 and 256 pixels
    expected = {
        "cifar10-edm": 3 * cifar,
        "cifar10-ect": 4 * cifar,
        "cifar10-ct": 4 * cifar + 3 * small,
        "cifar10-cd": 6 * cifar + 3 * small,
        "cifar10-cmt": 4 * cifar + 3 * small,
        "cifar10-sct": 5 * cifar,
        "cifar10-scd": 6 * cifar,
        "imagenet64-edm": 3 * imagenet,
        "imagenet64-ict": 4 * imagenet,
        "imagenet64-cd": 6 * imagenet + 3 * small,
        "bedroom256-ct": 4 * lsun + 3 * large,
        "cat256-cd": 6 * lsun + 3 * large,
    }
    for name, gflop in expected.items():
        assert preset_facts(name)["cost"]["gflop"] == pytest.approx(gflop, rel=2e-3), name


@pytest.mark.parametrize(("name", "steps"), [("cifar10-ct", 800_000), ("imagenet64-cd", 600_000), ("cat256-ct", 10**6)])
def test_lengths_are_those_of_table_3(name, steps, monkeypatch):
    monkeypatch.setattr("cmtool.options.load._in_registry", lambda d, spec: spec)
    options = loaded(name, preset_commands(name)[0])
    assert options.images == steps * options.batch


def test_the_middle_levels_are_the_published_indices_of_the_grid():
    """Index 11 of 18, 22 of 40, 106 of 201, 17 of 40, 67 and 62 of 151; TrigFlow's 1.1 rad is tan(1.1) / 2."""
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    grid = {
        "cifar10-cd": (11, 18), "imagenet64-cd": (22, 40), "imagenet64-ct": (106, 201),
        "bedroom256-cd": (17, 40), "bedroom256-ct": (67, 151), "cat256-ct": (62, 151),
    }  # fmt: skip
    for name, (i, n) in grid.items():
        assert preset_facts(name)["middle"] == pytest.approx((high + i / (n - 1) * (low - high)) ** 7, rel=1e-3), name
    assert preset_facts("cifar10-sct")["middle"] == pytest.approx(0.5 * math.tan(1.1), rel=1e-3)
