"""Tiny files such as k-diffusion's programs write."""

import json

import torch
from safetensors.torch import save_file

from cmtool.backbones.image_v1 import image_v1
from cmtool.testing import wake

__all__ = ["configured", "network", "slim", "training"]

OURS = {"wide": 16, "widths": (32, 64), "depths": (1, 1), "attention": (1,), "augment_dim": 9}


def network(**options):
    """A random network for images of 8x8 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return wake(image_v1((3, 8, 8), 0, **{**OURS, **options})).eval()


def configured(**model):
    """The configuration of that network."""
    said = {
        "type": "image_v1", "input_channels": 3, "input_size": [8, 8], "mapping_out": 16, "depths": [1, 1],
        "channels": [32, 64], "self_attn_depths": [False, True], "sigma_data": 0.6, "sigma_min": 0.01, "sigma_max": 80,
    }  # fmt: skip
    kept = {key: value for key, value in {**said, **model}.items() if value is not None}
    return {"model": kept, "dataset": {"type": "cifar10", "location": "data"}}


def named(net, wrapped=True):
    return {("inner_model." if wrapped else "") + name: value for name, value in net.state_dict().items()}


def slim(path, net=None, config=None, wrapped=True, dtype=torch.float32):
    """An average alone, as for inference; its path."""
    weights = {name: value.to(dtype) for name, value in named(net or network(), wrapped).items()}
    save_file(weights, path, metadata={"config": json.dumps(config or configured(), indent=4)})
    return path


def training(path, **more):
    """The state of a training whose average is the network, and whose network is 1 more everywhere; its path."""
    net = network()
    state = {
        "config": configured(),
        "model": {name: value + 1 for name, value in named(net).items()},
        "model_ema": named(net),
        "opt": torch.optim.AdamW(net.parameters()).state_dict(),
        "sched": {"last_epoch": 3, "_last_lr": [1e-4], "lr_lambdas": [None]},
        "ema_sched": {"power": 0.6667, "last_epoch": 3},
        "epoch": 0, "step": 3, "gns_stats": None, "demo_gen": torch.Generator().get_state(), "elapsed": 1.5,
    }  # fmt: skip
    torch.save({**state, **more}, path)
    return path
