"""What belongs to each picture of an edit: its true image, its mask; by name where both have one, else in order."""

from pathlib import Path

import numpy as np

from cmtool.errors import UsageError
from cmtool.files.picture_files import read_mask
from cmtool.files.streams.item import Item, StoredPicture, pixels
from cmtool.files.streams.names import match_key
from cmtool.files.streams.reader import STREAM, stdin
from cmtool.pictures import MAX_BYTES, SUFFIXES
from cmtool.pipelines.any_images import has_names, image_items, image_keys
from cmtool.settings import EditOptions

__all__ = ["MaskFiles", "Truths"]

MOST = 1 << 29  # bytes of pictures that wait for theirs, where an archive has them in another order


class Truths:
    """The images of ``target``, each called ``what``, one for each of ``source``.

    UsageError, at once where the names of both sides are known, for a picture that has none.
    """

    def __init__(self, target: str | Path, source: str, what: str):
        self.target, self.what, self.named = target, what, has_names(target)
        self.items, self.waiting, self.size = image_items(target), dict[str, Item](), 0
        if self.named and source != STREAM:
            there = {match_key(key) for key in image_keys(target)}
            for name in map(match_key, filter(None, image_keys(source))):
                if name not in there:
                    raise self._missing_error(name, there)

    def of(self, item: Item) -> Item:
        """That of a picture."""
        if not (self.named and item.key):
            partner = next(self.items, None)
            if partner is None:
                raise self._count_error()
            return partner
        name = match_key(item.key)
        while name not in self.waiting:
            partner = next(self.items, None)
            if partner is None:
                raise self._missing_error(name, set(self.waiting))
            self._wait(partner)
        return self.waiting.pop(name)

    def left(self) -> int:
        """How many belong to no picture; UsageError where they go by their order."""
        n = len(self.waiting) + sum(1 for _ in self.items)
        if n and not self.named:
            raise self._count_error()
        return n

    def _wait(self, item: Item) -> None:
        name = match_key(item.key)
        if name in self.waiting:
            raise UsageError(f"{self.target} has two images called '{name}'", "leave one of them")
        self.waiting[name] = item
        self.size += len(item.source) if isinstance(item.source, bytes) else 0
        if self.size > MOST:
            raise UsageError(f"the order of names in {self.target} is another than that of the inputs", "use a folder")

    def _missing_error(self, name: str, there: set[str]) -> UsageError:
        names = ", ".join(sorted(there)[:6]) + (", ..." if len(there) > 6 else "")
        hint = f"they belong together by name; in {self.target} there are: {names or 'no more'}"
        return UsageError(f"there is no {self.what} called '{name}' in {self.target}", hint)

    def _count_error(self) -> UsageError:
        return UsageError(
            f"there are not as many {self.what}s as inputs", "without names they belong together in their order"
        )


class MaskFiles:
    """The masks of files: one for all pictures, or one for each, by name."""

    def __init__(self, options: EditOptions):
        self.mask = options.mask
        self.asked = any(way is not None for way in (options.mask, options.box, options.random))
        one = self.mask is not None and (str(self.mask) == STREAM or self.mask.suffix.lower() in SUFFIXES)
        several = self.mask is not None and not one
        self.partners = Truths(self.mask, options.input, "mask") if self.mask and several else None
        self.one: np.ndarray | None = None

    def of(self, item: Item) -> np.ndarray | None:
        """uint8 [1, H, W] of a picture, or None where no mask is in a file."""
        if self.partners:
            mask = self.partners.of(item)
            source = pixels(mask) if isinstance(mask.source, StoredPicture) else mask.source
            return read_mask(source, mask.name)
        if self.mask is not None and self.one is None:
            piped = str(self.mask) == STREAM
            self.one = read_mask(
                stdin().read(MAX_BYTES + 1) if piped else self.mask, "the mask" if piped else str(self.mask)
            )
        return self.one
