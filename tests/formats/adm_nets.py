"""Tiny files such as OpenAI's programs write."""

import torch

from cmtool.backbones.adm import adm
from cmtool.testing import wake

__all__ = ["SPEC", "weights", "write"]

SPEC = {
    "model_channels": 32,
    "channel_mult": (1, 2),
    "num_blocks": 1,
    "attn_resolutions": (8,),
    "num_head_channels": 16,
}


def weights(side=16, classes=0, **options):
    """The state of a random network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return wake(adm((3, side, side), classes, **{**SPEC, **options})).state_dict()


def write(path, side=16, classes=0, **options):
    """A file of such weights; its path."""
    torch.save(weights(side, classes, **options), path)
    return path
