"""What pictures are, whatever they are stored in: a digest of one, a fingerprint of many, and which are equal.

The **digest** of a picture is the SHA-256 of its channels, height and width as uint32 and its uint8 values [C, H, W] as
they are decoded; of a point, of its length and its float32 values. The **fingerprint** is the SHA-256 of, for each
picture in order, its digest and its label as int64, -1 for none. All numbers are little-endian. So the same pictures
with the same labels have one fingerprint in every container.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Duplicates", "PictureList", "digest"]

NO_LABEL = -1
SHOWN = 100  # sets of equal pictures that are named


@dataclass(frozen=True)
class Duplicates:
    """``images`` that show what an earlier one shows, ``other_label`` those of them that have another label than it.

    ``groups`` are the first of the ``sets`` of equal pictures, by their names.
    """

    images: int
    sets: int
    other_label: int
    groups: list[list[str]]


class PictureList:
    """The pictures 0 to n - 1 that could be read, in their order: 13 bytes of memory for each.

    Two are taken to be equal whose digests begin with the same 64 bits, which of ten million different pictures no two
    do but with a probability of 3e-6.
    """

    def __init__(self, n: int):
        self.state = hashlib.sha256()
        self.keys, self.labels, self.read = np.zeros(n, "<u8"), np.full(n, NO_LABEL, np.int32), np.zeros(n, bool)

    def add(self, number: int, picture: bytes, label: int | None) -> None:
        """The digest of the next one, and its label."""
        label = NO_LABEL if label is None else label
        self.state.update(picture + np.array(label, "<i8").tobytes())
        self.keys[number], self.labels[number], self.read[number] = int.from_bytes(picture[:8], "little"), label, True

    def fingerprint(self) -> str:
        """Of those that were added."""
        return self.state.hexdigest()

    def duplicates(self, call: Callable[[int], str]) -> Duplicates:
        """Which are equal; ``call`` gives the name of a picture."""
        numbers = np.flatnonzero(self.read)
        numbers = numbers[np.argsort(self.keys[numbers], kind="stable")]
        keys = self.keys[numbers]
        same = np.concatenate([[False], keys[1:] == keys[:-1]])  # as the one before
        first = np.maximum.accumulate(np.where(same, 0, np.arange(len(same))))  # where its set begins
        other = self.labels[numbers] != self.labels[numbers[first]]
        begins = np.unique(first[same])
        begins = begins[np.argsort(numbers[begins])]
        groups = [[call(int(i)) for i in numbers[first == at][:SHOWN]] for at in begins[:SHOWN]]
        return Duplicates(int(same.sum()), len(begins), int(other.sum()), groups)


def digest(pixels: np.ndarray) -> bytes:
    """Of a picture uint8 [C, H, W] or a point float32 [D]."""
    found = hashlib.sha256(np.array(pixels.shape, "<u4").tobytes())
    found.update(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).data)
    return found.digest()
