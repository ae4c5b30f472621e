"""Files of every format with bytes changed, cut out, doubled or cut off: one sentence or a model, no traceback."""

import json
import random
import resource

import pytest
from adm_nets import write as adm
from diffusers_nets import tiny
from edm_nets import narrow_adm, text
from flax_files import write as flax
from kdiffusion_files import slim, training
from score_sde_files import network as ncsnpp
from score_sde_files import write as score_sde

import cmtool
from cmtool.errors import CmtoolError
from cmtool.files.checkpoint import save
from cmtool.files.safe_pickle import persistence
from cmtool.files.safe_pickle.sandbox import describe_to_json, parse_answer
from cmtool.formats import edm
from cmtool.formats.diffusers_writer import write_diffusers as diffusers

ADM = {"format": {"name": "openai", "kind": "consistency", "side": 16}, "backbone": {"head_width": 16}}
TOLD = {
    "openai": ADM,
    "edm": {"format": {"name": "edm"}},
    "score_sde": {"format": {"name": "score_sde", "side": 16}},
    "jcm": {"format": {"name": "jcm", "kind": "score", "side": 16}},
    "kdiffusion": {"format": {"name": "kdiffusion"}},
    "training": {"format": {"name": "kdiffusion"}},
    "weights": {},  # of a folder of diffusers
    "config": {},
    "ours": {},
}
MEMORY = 1 << 19  # kilobytes


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A file of each, and what is loaded when it is: of a folder, the folder."""
    at = tmp_path_factory.mktemp("sound")
    (at / "edm").write_bytes(text(narrow_adm("")))
    model = tiny(channel_mult=(1,), attention=())
    save(at / "ours.safetensors", model.model, model.header)
    diffusers(at / "folder", model.model, model.header)
    files = {
        "openai": adm(at / "openai", channel_mult=(1,), attention=()),
        "edm": at / "edm",
        "score_sde": score_sde(at / "score_sde", channel_mult=(1,), attention=(0,)),
        "jcm": flax(at / "jcm", ncsnpp(channel_mult=(1,))),
        "kdiffusion": slim(at / "kdiffusion"),
        "training": training(at / "training"),
        "weights": at / "folder" / "unet" / "diffusion_pytorch_model.safetensors",
        "config": at / "folder" / "unet" / "config.json",
        "ours": at / "ours.safetensors",
    }
    return {name: (file, at / "folder" if "folder" in file.parts else file) for name, file in files.items()}


def changed(whole, dice):
    """Mostly near an end, where tables, directories and pickles stand."""
    data = bytearray(whole)
    reach = len(data) if dice.random() < 0.3 else min(len(data), 3000)
    at = dice.randrange(reach) if dice.random() < 0.5 else len(data) - 1 - dice.randrange(reach)
    match dice.randrange(6):
        case 0:
            del data[at : at + dice.randrange(1, 40)]
        case 1:
            data[at:at] = data[at : at + dice.randrange(1, 40)]
        case 2:
            del data[at:]
        case _:
            for i in range(dice.randrange(1, 6)):
                data[(at + i * dice.randrange(9)) % len(data)] = dice.randrange(256)
    return bytes(data)


def attempt(sound, n, monkeypatch):
    """How many of n changes were refused; the files are as they were afterwards."""
    monkeypatch.setattr(
        edm, "describe_network", lambda path: parse_answer(path, describe_to_json(path, persistence.describe))
    )
    wholes, refused = {name: file.read_bytes() for name, (file, _) in sound.items()}, 0
    names = sorted(wholes)
    for i in range(n):
        name, dice = names[i % len(names)], random.Random(i)
        file, loaded = sound[name]
        try:
            file.write_bytes(changed(wholes[name], dice))
            model = cmtool.load(loaded, **(TOLD[name] if dice.random() < 0.7 else {}))
            assert json.dumps(model.header.document())
        except CmtoolError as error:
            assert "\n" not in error.message, error.message
            assert error.code in (2, 65, 66), error.message
            refused += 1
        finally:
            file.write_bytes(wholes[name])
    return refused


def test_changes(sound, monkeypatch):
    assert 30 < attempt(sound, 90, monkeypatch) < 90


@pytest.mark.slow
def test_many_changes(sound, monkeypatch):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 1600 < attempt(sound, 5000, monkeypatch) < 5000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY
