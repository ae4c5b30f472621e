"""The order in which gradients of micro-batches are added: a fixed tree, whoever computes its leaves.

A sum of floats depends on its order. Over M leaves, the micro-batches of a global batch in their order, node i of depth
d covers the leaves from ``i M / 2^d`` to ``(i + 1) M / 2^d``, rounded down, and is the sum of its two halves, the left
one first. Nothing in that depends on ranks or threads. Rank r of w has the leaves from ``r M / w`` to
``(r + 1) M / w``: as many as any other but for one, and where w is a power of two they are one node.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from cmtool.training.ranks import Ranks

__all__ = ["Node", "RankSum", "pieces_of", "share_of", "tree_sum"]


class Node(NamedTuple):
    """A node of the tree; the default is its root."""

    depth: int = 0
    place: int = 0

    def leaves(self, count: int) -> range:
        """Those it covers, of ``count``."""
        return range(self.place * count >> self.depth, (self.place + 1) * count >> self.depth)

    def halves(self) -> tuple["Node", "Node"]:
        return Node(self.depth + 1, 2 * self.place), Node(self.depth + 1, 2 * self.place + 1)


ROOT = Node()


def share_of(rank: int, size: int, count: int) -> range:
    """The part of ``count`` things in a row that a rank has."""
    return range(rank * count // size, (rank + 1) * count // size)


def pieces_of(ours: range, count: int, node: Node = ROOT) -> Iterator[Node]:
    """The largest nodes of which a rank has every leaf, in order: what it can add up by itself."""
    leaves = node.leaves(count)
    if leaves and leaves.start in ours and leaves[-1] in ours:
        yield node
    elif len(leaves) > 1:
        for half in node.halves():
            yield from pieces_of(ours, count, half)


def tree_sum(
    count: int, value: Callable[[Node], Sequence[Tensor] | None], node: Node = ROOT
) -> Sequence[Tensor] | None:
    """The sum at a node of tensors side by side, None where it has no leaves.

    ``value`` gives the nodes that are known, and None for others; it is asked in the order of the leaves, and what it
    gives is added to in place. At any time a sum for each depth is held, not one for each leaf.
    """
    if not node.leaves(count):
        return None
    known = value(node)
    if known is not None:
        return known
    left, right = (tree_sum(count, value, half) for half in node.halves())
    if left is None or right is None:
        return right if left is None else left
    for mine, other in zip(left, right, strict=True):
        mine.add_(other)
    return left


class RankSum:
    """Adds up the pieces of all ranks in the order of the tree: each rank does so for an equal part of the elements.

    ``load`` takes all the memory that is needed; ``sum``, which all ranks must call, gives every one the whole. What is
    sent is that of a ring all-reduce, as long as each rank has one piece.
    """

    def __init__(self, ranks: Ranks, count: int, length: int):
        self.ranks, self.count, self.length = ranks, count, length
        self.nodes = [list(pieces_of(share_of(rank, ranks.size, count), count)) for rank in range(ranks.size)]
        self.part = -(-length // ranks.size)

    def load(self, pieces: Sequence[Tensor], like: Tensor) -> None:
        """The pieces of this rank, vectors in the order of ``pieces_of``."""
        size, numbers = self.ranks.size, [len(nodes) for nodes in self.nodes]
        self.sent = like.new_zeros(size, len(pieces), self.part)
        for k, piece in enumerate(pieces):
            whole = like.new_zeros(size * self.part)
            whole[: self.length] = piece
            self.sent[:, k] = whole.view(size, self.part)
        self.came = like.new_empty(sum(numbers), self.part)
        self.whole = like.new_empty(size * self.part)

    def sum(self) -> Tensor:
        """The root, on every rank."""
        numbers = [len(nodes) for nodes in self.nodes]
        self.ranks.exchange(self.sent.view(-1), self.came.view(-1), [n * self.part for n in numbers])
        known = dict(zip((node for nodes in self.nodes for node in nodes), self.came, strict=True))
        mine = tree_sum(self.count, lambda node: None if (found := known.get(node)) is None else [found])
        assert mine is not None, "a batch has at least one micro-batch"
        self.ranks.gather(mine[0].contiguous(), self.whole)
        return self.whole[: self.length]
