"""What ``--ema`` takes: the names of averages of the weights; ``training/ema.py`` computes them."""

from collections.abc import Callable
from dataclasses import dataclass

from cmtool.options.types import Check

__all__ = ["EMA_SPECS", "MAX_EMA_WIDTH", "EMASpec", "parse_ema_specs"]

MAX_EMA_WIDTH = 12**-0.5  # of a power function whose exponent is not negative

# Each way to average, and the values it takes; ``training/ema.py: RULES`` has the decay of each.
FORMS: dict[str, Callable[[float], bool]] = {
    "half-life": lambda images: 0 <= images < float("inf"),
    "power": lambda width: 0 < width <= MAX_EMA_WIDTH,
    "constant": lambda beta: 0 <= beta < 1,
    "counted": lambda beta: 0 <= beta < 1,
}


@dataclass(frozen=True)
class EMASpec:
    """One average: how old weights are forgotten, and how fast."""

    form: str
    value: float

    @property
    def name(self) -> str:
        """``power-0.05``, as in the names of files."""
        return str(self).replace(":", "-")

    def __str__(self) -> str:
        return f"{self.form}:{repr(self.value).removesuffix('.0')}"


def parse_ema_specs(text: int | str) -> tuple[EMASpec, ...]:
    """The averages that ``1500``, ``power:0.05`` or several with commas between them stand for; ValueError for others.

    A number alone is a half-life in images, and below 1 the decay of each step that papers give, such as 0.9999.
    """
    found = tuple(_ema_spec(part.strip()) for part in str(text).split(","))
    if len(set(found)) < len(found):
        raise ValueError("one stands there twice")
    return found


def _ema_spec(text: str) -> EMASpec:
    form, _, value = text.rpartition(":")
    number = float(value)
    spec = EMASpec(form or ("constant" if 0 < number < 1 else "half-life"), number)
    if spec.form not in FORMS or not FORMS[spec.form](spec.value):
        raise ValueError(text)
    return spec


def _are_ema_specs(text: int | str) -> bool:
    try:
        return bool(parse_ema_specs(text))
    except ValueError:
        return False


EMA_SPECS = Check(
    _are_ema_specs,
    "half-lives in images (0: no average), decays such as 0.9999, power:WIDTH, constant:BETA or counted:BETA, each "
    "once, with commas between",
)
