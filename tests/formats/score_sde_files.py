"""Tiny files such as score_sde's training writes."""

import torch

from cmtool.options import registry
from cmtool.testing import wake

__all__ = ["SPEC", "network", "write"]

SPEC = {"model_channels": 16, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (8,)}


def network(name="ncsnpp", **options):
    """A random network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return wake(registry.build("backbones", {"name": name, **SPEC, **options}, (3, 16, 16), 0)).eval()


def write(path, name="ncsnpp", levels=(50.0, 1.0, 0.01), **options):
    """A training whose average is the network, and whose network is 1 more everywhere; its path."""
    net = network(name, **options)
    named = {"module.sigmas": torch.tensor([*levels], dtype=torch.float64)}
    named |= {f"module.{key}": value + 1 for key, value in net.state_dict().items()}
    average = {"decay": 0.999, "num_updates": 1, "shadow_params": [p.detach() for p in net.parameters()]}
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4).state_dict()
    fourier = "module.all_modules.0.W"
    if fourier in named:
        named[fourier] = net.state_dict()["all_modules.0.W"]  # which is not learnt
    torch.save({"optimizer": optimizer, "model": named, "ema": average, "step": 1}, path)
    return path
