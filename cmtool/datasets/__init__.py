"""Data: plugins that ship with us.

A data set is a function ``(source, *, **options) -> Dataset``, registered in the entry-point group
``cmtool.datasets``. ``source`` is the path a user gave, or None.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Dataset"]


class Dataset(Protocol):
    """Images uint8 ``[C, H, W]``, or points float32 ``[D]`` in model units, each with a label or None.

    ``shape`` is that of one item; ``classes`` names the labels 0, 1, ..., and is empty where there are none;
    ``notice`` is one line with attribution and licence. An item depends on its index alone.

    A data set that can make many items at once has one more method, of which the items must be equal to ``[i]``:
    ``batch(indices) -> (items [B, *shape], labels int64 [B] or None)``. One that reads files may have ``remarks``,
    lines on what was passed over, and ``inventory``, ``{name: number}`` where a number changes with the contents of a
    file: by it a run that is taken up knows its data again, wherever they lie.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def notice(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> "tuple[Tensor, int | None]": ...
