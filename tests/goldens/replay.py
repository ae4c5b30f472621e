"""Recorded draws by the number of the step they belong to: the references also draw where they add nothing."""

from torch import Tensor

from cmtool.core.noise import STEP


class ByStep:
    """Stands in for Noise: step k of a walk, before it or after it, gets the k-th draw."""

    def __init__(self, draws: list[Tensor]):
        self.draws = draws

    def normal(self, shape, stream: int = 0) -> Tensor:
        z = self.draws[(stream - STEP) // 2]
        assert tuple(z.shape[1:]) == tuple(shape)
        return z
