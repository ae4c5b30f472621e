"""Files as EDM's programs write them, made without their code: random networks, whose program text is a trap."""

import pickle
import sys
from types import ModuleType
from unittest.mock import patch

import torch
from torch import nn

from cmtool.backbones.dhariwal import dhariwal
from cmtool.backbones.edm2 import edm2
from cmtool.backbones.magnitude import Conv, Fourier
from cmtool.backbones.songunet import songunet
from cmtool.testing import wake

TRAP = "import os; os.mkdir({!r})"  # what would run if anybody ran it
SONG = {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
IMAGES = {"img_resolution": 8, "img_channels": 3, "label_dim": 0}


def _reconstruct_persistent_obj(meta):
    raise AssertionError("somebody called what the file named")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Persistent:
    """An object that is stored with its class name, its state and the text of its program."""

    def __init__(self, name, state, trap):
        self.meta = {"type": "class", "version": 6, "module_src": trap, "class_name": name, "state": state}

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


def stored(module, name, trap, **more):
    """A module with all that is below it."""
    below = {key: child and stored(child, type(child).__name__, trap) for key, child in module._modules.items()}
    if isinstance(module, nn.ModuleDict):
        module._modules = below
        return module
    state = {key: value for key, value in vars(module).items() if key.startswith("_") and key.endswith("s")}
    state.update(training=False, _modules=below, _non_persistent_buffers_set=set(), **more)
    return Persistent(name, state, trap)


def network(factory, shape=(3, 8, 8), classes=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return wake(factory(shape, classes, **options))


def outer(net, kind, arguments, trap, inside="SongUNet", at="model", beside=(), **attributes):
    """The class around a network and what is ``beside`` it, as training keeps it."""
    around = nn.Module()
    for name, module in ((at, net), *beside):
        around.add_module(name, module)
    object = stored(around, kind, trap, _init_args=(), _init_kwargs=arguments, **attributes)
    object.meta["state"]["_modules"][at].meta["class_name"] = inside
    return object


def song(trap, kind="EDMPrecond", classes=0, more=None, **attributes):
    """A small DDPM++."""
    arguments = {**IMAGES, "label_dim": classes, "model_type": "SongUNet", **SONG, **(more or {})}
    net = network(songunet, classes=classes, model_channels=8, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,))
    return outer(net, kind, arguments, trap, sigma_data=0.5, **attributes)


def narrow_adm(trap, **more):
    arguments = {**IMAGES, "model_type": "DhariwalUNet", **SONG, "channel_mult": [1], "attn_resolutions": [], **more}
    net = network(dhariwal, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=(), learn_variance=True)
    return outer(net, "iDDPMPrecond", arguments, trap, "DhariwalUNet")


def magnitudes(trap, uncertain=True, **more):
    """A small network of EDM2 with the head of its loss, or without it, as ECT tunes one."""
    arguments = {**IMAGES, **SONG, "channel_mult": [1], "channels_per_head": 8, "use_fp16": True, **more}
    net = network(
        edm2, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=(4,), num_head_channels=8
    ).half()
    head = (("logvar_fourier", Fourier(8)), ("logvar_linear", Conv(8, 1))) if uncertain else ()
    return outer(net, "Precond", arguments, trap, "UNet", "unet", head, sigma_data=0.5)


def text(top, protocol=4):
    """The pickle of ``{"ema": top}``, or of what ``top`` is if it is a dictionary."""
    module = ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    package = ModuleType("torch_utils")
    package.persistence = module
    with patch.dict(sys.modules, {"torch_utils": package, "torch_utils.persistence": module}):
        return pickle.dumps(top if isinstance(top, dict) else {"ema": top, "dataset_kwargs": {"path": "x"}}, protocol)
