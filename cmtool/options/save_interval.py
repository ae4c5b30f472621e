"""What ``--save-every`` takes: how much time or how many images may pass between two saves of a run."""

import re
from dataclasses import dataclass

from cmtool.options.types import Check

__all__ = ["SAVE_INTERVALS", "SaveInterval", "parse_save_interval"]

SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}
IMAGES = {"img": 1, "kimg": 1000}
MOST = 10**12  # seconds or images


@dataclass(frozen=True)
class SaveInterval:
    """A save is due when ``seconds`` or ``images`` have passed, whichever is first; None: that does not count."""

    seconds: float | None = None
    images: int | None = None

    def due(self, images: int, batch: int, seconds: float) -> bool:
        """Whether the step of ``batch`` images that ended at ``images`` calls for a save, the last ``seconds`` ago.

        The images count from the beginning of the run, so that a run that was stopped saves where another one does.
        """
        by_images = self.images is not None and images // self.images > (images - batch) // self.images
        return by_images or (self.seconds is not None and seconds >= self.seconds)


def parse_save_interval(text: str) -> SaveInterval:
    """``10min``, ``90s``, ``1h``, ``5000img``, ``50kimg``, or a time and images with a comma; ValueError for others."""
    found: dict[str, float] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]{1,4})\s*", part)
        number, unit = (float(match[1]), match[2]) if match else (0.0, "")
        kind, size = ("seconds", SECONDS[unit]) if unit in SECONDS else ("images", IMAGES.get(unit, 0))
        value = number * size
        if not 0 < value <= MOST or kind in found or (kind == "images" and value != int(value)):
            raise ValueError(f"'{part}' is no time and no number of images")
        found[kind] = value
    images = found.get("images")
    return SaveInterval(found.get("seconds"), None if images is None else int(images))


def _is_interval(value: str) -> bool:
    try:
        parse_save_interval(value)
    except ValueError:
        return False
    return True


SAVE_INTERVALS = Check(
    _is_interval, "a time such as 10min, 90s or 1h, images such as 5000img or 50kimg, or both with a comma between"
)
