"""Which class a picture is of, by the denoiser's error on what is known of it."""

import torch
from torch import Tensor

from cmtool.core.denoiser import Denoiser, broadcast_like
from cmtool.core.deterministic import in_fixed_batches
from cmtool.core.editing.operators import Operator
from cmtool.core.guidance import Guided
from cmtool.core.noise import START, STEP, Noise
from cmtool.errors import Hint, Setting, UsageError
from cmtool.files.model_format import LoadedModel
from cmtool.pipelines.batching import chunk_size, num_threads

__all__ = ["classify"]

SIGMAS = (4.0, 2.0, 1.0)  # times the deviation of the data; of what was tried on digits and emoji the best
DRAWS = (0, 1)  # noise seeds for each class
MAX_CLASSES = 100  # classes; trying each of more would take longer than the edit


def classify(loaded: LoadedModel[Denoiser | Guided], operator: Operator) -> int:
    """The class of one picture, the reference of the task: that whose images are nearest to it.

    The images are those of a few denoising steps constrained to what is known, and the error of a class is
    ``sum |known(f(x, sigma)) - known(y)|^2 / sigma^2``; where the task knows nothing for certain, the whole picture
    counts. Of 60 digits it found 85 to 92 % through holes, coarse pixels and noise.
    """
    header = loaded.header
    if header.num_classes > MAX_CLASSES:
        raise UsageError(
            f"the model has {header.num_classes} classes, too many to try", Hint("say which: {}", Setting("class", 207))
        )
    device, shape = operator.reference.device, header.shape
    classes = torch.arange(header.num_classes, device=device)

    def squared_error(x: Tensor, sigma: Tensor) -> Tensor:
        off = x - operator.reference
        return (operator.known_part(off) if operator.keeps else off).square().flatten(1).mean(1) / float(sigma) ** 2

    total = torch.zeros(len(classes), device=device)
    with in_fixed_batches(loaded.model, chunk_size(shape, device), num_threads(device)) as denoise:
        for seed in DRAWS:
            x, noise = operator.start, Noise([seed])
            for k, sigma in enumerate(header.preconditioning["sigma_data"] * torch.tensor(SIGMAS, dtype=torch.float64)):
                z = noise.normal(shape, STEP + k if k else START).to(x)
                x = denoise(
                    (x + broadcast_like(sigma, x) * z).expand(len(classes), *shape), sigma.expand(len(classes)), classes
                )
                total += squared_error(x, sigma)
                x = operator.impose(x)
    return int(total.argmin())
