"""What the tensors of a network of score_sde tell of its architecture."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtool.formats.common import whole_network

__all__ = ["LIST", "ScoreSDEShape", "read_ncsnpp_shape"]

LIST = "all_modules."  # begins the name of every weight
MOST = 10_000  # modules; the deepest published network has less than a hundredth
FILTER = [1.0, 3.0, 3.0, 1.0]  # of all published networks that filter where sides change


@dataclass(frozen=True)
class ScoreSDEShape:
    """``backbone`` holds the options that the tensors settle; ``guessed`` those that they leave open, as published."""

    backbone: dict[str, Any]
    guessed: dict[str, Any]
    attention_levels: tuple[int, ...]
    channels: int

    @property
    def layers(self) -> tuple[Any, ...]:
        """What tells the sides of the published networks apart."""
        return (
            self.backbone["model_channels"],
            tuple(self.backbone["channel_mult"]),
            self.attention_levels,
        )

    def attn_resolutions(self, side: int) -> list[int]:
        """The resolutions with attention, of images with this side."""
        return [side >> level for level in self.attention_levels]

    @property
    def fourier(self) -> bool:
        return self.backbone.get("embedding_type") == "fourier"


Part = Mapping[str, Tensor]


def read_ncsnpp_shape(path: Path, tensors: Mapping[str, Tensor]) -> ScoreSDEShape:
    """Width, levels, blocks and ways of the image, from names and shapes; BadFile where they make no network."""
    with whole_network(path, "network of score_sde"):
        return _read_architecture(_parts(tensors))


def _parts(tensors: Mapping[str, Tensor]) -> list[Part]:
    """The weights of each module in the order of the list; none of those that have no weights."""
    parts: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        number, _, rest = name.removeprefix(LIST).partition(".")
        parts[int(number)][rest] = tensor
    if max(parts) > MOST:
        raise ValueError(f"module {max(parts)}")
    return [parts[number] for number in range(max(parts) + 1)]


def _read_architecture(parts: list[Part]) -> ScoreSDEShape:
    """A network that is not conditioned on the noise level begins with a convolution, with no linear map before it."""
    fourier = "W" in parts[0]
    conditional = parts[fourier]["weight"].ndim == 2
    first = fourier + 2 * conditional
    entry, body = parts[first], parts[first + 1 :]
    width, channels = entry["weight"].shape[:2]
    plain = not any("Conv_2.weight" in part for part in body)
    ends = [i for i, part in enumerate(body) if (_is_strided(part) or not part if plain else _is_resizing(part))]
    levels = len(ends) // 2 + 1
    kept = [i for i, part in enumerate(body) if "Conv_1.weight" in part and i not in ends]
    blocks = ((len(kept) - 2) // levels - 1) // 2
    firsts = kept[: levels * blocks : blocks]
    sizes = {
        "model_channels": width,
        "channel_mult": [body[i]["Conv_0.weight"].shape[0] // width for i in firsts],
        "num_blocks": blocks,
    }
    attention = tuple(level for level, i in enumerate(firsts) if "NIN_3.W" in body[i + 1])
    if min(sizes["channel_mult"]) < 1 or min(width, channels) < 1:
        raise ValueError("a level")
    flags = {} if conditional else {"noise_conditional": False}
    if plain:
        bare = {} if all(body) else {"conv_resample": False}
        return ScoreSDEShape({"name": "ddpm", **sizes, **flags, **bare}, {}, attention, channels)
    beside, filtered = _beside(body)
    decoder = "skip" if sum("bias" in part and part["bias"].shape == (channels,) for part in body) > 1 else "standard"
    embedding = "fourier" if fourier else "positional"
    ways = {"embedding_type": embedding, **beside, "decoder_type": decoder, **flags}
    taps = {} if filtered is None else {"resample_filter": FILTER if filtered else [1.0, 1.0]}
    guessed = {"skip_rescale": True, "resample_filter": [1.0, 1.0] if beside["encoder_type"] == "standard" else FILTER}
    return ScoreSDEShape({"name": "ncsnpp", **sizes, **ways, **taps}, guessed, attention, channels)


def _is_strided(part: Part) -> bool:
    """A convolution alone."""
    return "Conv_0.weight" in part and "GroupNorm_0.weight" not in part


def _is_resizing(part: Part) -> bool:
    """A block that has a convolution in its skip connection though it keeps its channels."""
    return "Conv_2.weight" in part and part["Conv_2.weight"].shape[0] == part["Conv_2.weight"].shape[1]


def _beside(body: list[Part]) -> tuple[dict[str, Any], bool | None]:
    """How the image goes beside the blocks, and whether it is filtered; None where that does not show."""
    if any("Conv2d_0.weight" in part for part in body):
        return {"encoder_type": "residual"}, True
    alone = [i for i, part in enumerate(body) if _is_strided(part)]
    if not alone:
        return {"encoder_type": "standard"}, None
    weight, after = body[alone[0]]["Conv_0.weight"], body[alone[0] + 1]["Conv_0.weight"]
    if weight.shape[-1] == 3:
        return {"encoder_type": "residual"}, False
    return {"encoder_type": "skip", "combine": "cat" if after.shape[1] == 2 * weight.shape[0] else "sum"}, None
