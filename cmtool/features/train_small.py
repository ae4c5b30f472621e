"""How ``small.safetensors`` was made: ``python -m cmtool.features.train_small OUT``, some minutes on one core.

Features that measure samples must see what is shown and how well it is shown. So the network learns, on pictures that
were damaged in known ways, to tell both: the class, the layout of colours, and the amount of every kind of damage.
Another processor or another torch rounds otherwise, and the file is then as good but not the same.
"""

import math
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from cmtool.features.small import SIDE, Net

SEED = 2023
STEPS = 5000
BATCH = 32  # of each of the two data sets
RATE = 2e-3
LAYOUT = 4  # the picture is to be recognised from its averages at this size
DAMAGES = ("noise", "blur", "warp", "ghost", "contrast")


class Batch(NamedTuple):
    """Damaged pictures [B, 3, 32, 32] in [0, 1], what they show [B], and the amounts of damage [B, 5] in [0, 1]."""

    x: Tensor
    labels: Tensor
    much: Tensor


class Source:
    """A data set in memory as [N, 3, S, S] in [0, 1], with its labels counted from ``first``."""

    def __init__(self, name: str, first: int, sides: list[int], **options):
        (entry,) = {entry.value: entry for entry in entry_points(group="cmtool.datasets", name=name)}.values()
        images, labels = zip(*(entry.load()(None, **options)), strict=True)
        self.x = torch.stack(images).expand(-1, 3, -1, -1) / 255
        self.labels = torch.tensor(labels) + first
        self.sides = sides

    def batch(self, generator: Generator) -> Batch:
        """Random pictures, all at one native size of ``sides``, recolored, damaged and resized to 32 x 32."""
        rows = torch.randint(len(self.x), (BATCH,), generator=generator)
        much = torch.rand(len(DAMAGES), BATCH, generator=generator)
        much *= torch.rand(much.shape, generator=generator) < 0.4
        x = recolor(resize(self.x[rows], pick(self.sides, generator)), generator)
        x = resize(damage(x, much, generator), SIDE, pick(["bilinear", "nearest"], generator))
        return Batch(x, self.labels[rows], much.T)


def pick(items: list, generator: Generator):
    return items[int(torch.randint(len(items), (), generator=generator))]


def column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def resize(x: Tensor, side: int, mode: str = "bilinear") -> Tensor:
    return x if x.shape[-1] == side else F.interpolate(x, [side, side], mode=mode, antialias=mode == "bilinear")


def recolor(x: Tensor, generator: Generator) -> Tensor:
    """A third of the pictures in other colours: the channels scaled, or scaled and shifted."""
    low, high = torch.rand(2, len(x), 3, 1, 1, generator=generator)
    shift, change = torch.rand(2, len(x), 1, 1, 1, generator=generator)
    other = torch.where(shift < 0.5, low + (high - low) * x, x * (0.5 + high))
    return torch.where(change < 0.35, other.clamp(0, 1), x)


def damage(x: Tensor, much: Tensor, generator: Generator) -> Tensor:
    """``x`` [B, 3, S, S] with damages of the amounts [5, B] in [0, 1]."""
    noise, width, reach, ghost, contrast = much
    x = x.lerp(x[torch.randperm(len(x), generator=generator)], column(0.5 * ghost))
    x = warp(x, 0.35 * reach, generator)
    x = blur(x, 2 * width)
    x = (x - 0.5) * column(1 - 0.7 * contrast) + 0.5
    return (x + column(0.35 * noise**2) * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def warp(x: Tensor, reach: Tensor, generator: Generator) -> Tensor:
    """Pixels pushed about by a smooth random field of at most ``reach`` [B], where the picture is 2 wide."""
    push = F.interpolate(torch.rand(len(x), 2, 5, 5, generator=generator) * 2 - 1, x.shape[-2:], mode="bicubic")
    still = F.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), list(x.shape), align_corners=False)
    grid = still + (push * column(reach)).permute(0, 2, 3, 1)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def blur(x: Tensor, width: Tensor) -> Tensor:
    """Gaussian blur by ``width`` [B] pixels."""
    reach = min(6, x.shape[-1] - 1)
    at = torch.arange(-reach, reach + 1)
    kernel = torch.softmax(-(at**2) / (2 * width.clamp(min=0.1)[:, None] ** 2), dim=1).repeat_interleave(3, 0)[:, None]
    planes = F.pad(x, [reach] * 4, mode="reflect").flatten(0, 1)[None]
    planes = F.conv2d(planes, kernel[..., None], groups=len(kernel))
    return F.conv2d(planes, kernel[:, :, None], groups=len(kernel)).view_as(x)


class Examiner(nn.Module):
    """What is asked of the averages: linear answers for class, damages and layout."""

    def __init__(self, averages: int, classes: int):
        super().__init__()
        self.sizes = [classes, len(DAMAGES), 3 * LAYOUT**2]
        self.answer = nn.Linear(averages, sum(self.sizes))

    def loss(self, averages: Tensor, batch: Batch) -> Tensor:
        """One number; the factors bring the three errors to about one size."""
        classes, damages, layout = self.answer(averages).split(self.sizes, dim=1)
        seen = F.adaptive_avg_pool2d(batch.x, LAYOUT).flatten(1)
        wrong = F.cross_entropy(classes, batch.labels)
        return wrong + 40 * F.mse_loss(damages, batch.much) + 10 * F.mse_loss(layout, seen)


def train(steps: int = STEPS) -> Net:
    """The trained network, its features uncorrelated and of unit variance on the pictures it learned from."""
    torch.manual_seed(SEED)
    generator = Generator().manual_seed(SEED)
    sources = [
        Source("digits", 0, [8, 8, 16]),
        Source("shapes", 10, [32, 32, 16, 8], count=8000, seed=SEED),
    ]

    def draw() -> Batch:
        return Batch(*map(torch.cat, zip(*(source.batch(generator) for source in sources), strict=True)))

    net = Net()
    learn(net, draw, steps)
    with torch.no_grad():
        fine, coarse = torch.cat([averages(net, draw()) for _ in range(200)]).split([32, 96], dim=1)
        whiten(net.texture, fine)
        whiten(net.content, coarse)
    return net


def learn(net: Net, draw: Callable[[], Batch], steps: int) -> None:
    """AdamW with a cosine from ``RATE`` to 0, after a short start."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, 0.1)
    examiner = Examiner(32 + 96, 20)
    optimizer = torch.optim.AdamW([*net.parameters(), *examiner.parameters()], RATE, weight_decay=0.01)
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = RATE * min(1, step / 100) * math.cos(math.pi / 2 * step / steps) ** 2
        batch = draw()
        loss = examiner.loss(averages(net, batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}  loss {loss.item():.3f}", file=sys.stderr)


def averages(net: Net, batch: Batch) -> Tensor:
    return torch.cat(net.pooled(batch.x * 2 - 1), dim=1)


def whiten(layer: nn.Linear, seen: Tensor) -> None:
    """Make ``layer`` give the leading principal components of ``seen`` [N, D], each with mean 0 and variance 1."""
    seen = seen.double()
    values, vectors = torch.linalg.eigh(torch.corrcoef(seen.T))
    leading = slice(-layer.out_features, None)
    weight = (vectors[:, leading] / values[leading].sqrt()).T / seen.std(dim=0)
    layer.weight.copy_(weight)
    layer.bias.copy_(-weight @ seen.mean(dim=0))


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    about = "Apache-2.0; trained on shapes and on digits (E. Alpaydin and C. Kaynak, UCI, CC BY 4.0)"
    save_file(train().state_dict(), sys.argv[1], {"about": about})  # one entry, as their order would be random
