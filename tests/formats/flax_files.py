"""MessagePack as flax writes it, from the specification, and tiny states of the CIFAR-10 consistency models."""

import struct
from collections import Counter

import numpy as np

__all__ = ["pack", "tree", "write"]

KINDS = {
    "Fourier": "GaussianFourierProjection", "Linear": "Dense", "Conv2d": "Conv", "GroupNorm": "GroupNorm",
    "Block": "ResnetBlockBigGANpp", "Attention": "AttnBlockpp", "Filtered": "Downsample",
}  # fmt: skip


def pack(value):
    """The bytes of a value, in the wider of its possible encodings now and then."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int() if 0 <= value < 128:
            return bytes([value])
        case int() if -32 <= value < 0:
            return struct.pack(">b", value)
        case int():
            return b"\xd3" + struct.pack(">q", value)
        case float() if not isinstance(value, np.generic):
            return b"\xcb" + struct.pack(">d", value)
        case str():
            text = value.encode()
            return (bytes([0xA0 + len(text)]) if len(text) < 32 else b"\xd9" + bytes([len(text)])) + text
        case bytes():
            return b"\xc6" + struct.pack(">I", len(value)) + value
        case np.ndarray() | np.generic():
            shape = b"".join(pack(side) for side in value.shape)
            inside = b"\x93" + bytes([0x90 + value.ndim]) + shape + pack(value.dtype.name) + pack(value.tobytes())
            code = 1 if isinstance(value, np.ndarray) else 3
            return b"\xc9" + struct.pack(">Ib", len(inside), code) + inside
        case dict():
            items = b"".join(pack(key) + pack(entry) for key, entry in value.items())
            return (bytes([0x80 + len(value)]) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))) + items
        case list():
            return b"\xdc" + struct.pack(">H", len(value)) + b"".join(pack(entry) for entry in value)
    raise TypeError(value)


def tree(net):
    """Our network as flax names and lays out its weights."""
    counts, made = Counter(), {}
    for part in net.all_modules:
        kind = KINDS[type(part).__name__]
        here = made.setdefault(f"{kind}_{counts[kind]}", {})
        counts[kind] += 1
        for name, value in part.state_dict().items():
            *folders, leaf = name.split(".")
            node, array = here, value.numpy()
            for folder in folders:
                node = node.setdefault(folder, {})
            last = (folders or [kind])[-1]
            if leaf == "weight":
                leaf = "scale" if "GroupNorm" in last else "weight" if last == "Conv2d_0" else "kernel"
                array = {1: array, 2: array.T, 4: array.transpose(2, 3, 1, 0) if array.ndim == 4 else array}[array.ndim]
            node[leaf] = np.ascontiguousarray(array)
    return dict(sorted(made.items()))


def write(path, net, **more):
    """A state of a training whose average is ``net``; its path."""
    state = {
        "ema_rate": 0.999, "lr": np.float32(4e-4), "model_state": {}, "opt_state": {"0": {"count": np.int32(800_000)}},
        "params": {}, "params_ema": tree(net), "rng_state": [1, -5, 2**40], "step": np.array(800_000), **more,
    }  # fmt: skip
    path.write_bytes(pack(state))
    return path
