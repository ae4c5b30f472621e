"""The tree in which gradients are added: the same sum for any number of ranks, and an even share for each."""

import math

import pytest
import torch
from rank_threads import on_ranks

from cmtool.training.summation_tree import Node, RankSum, pieces_of, share_of, tree_sum

NUMBERS = [1, 2, 3, 5, 7, 8, 11, 16, 37, 100]


def balanced(values):
    """The same tree, written as its definition: halve the interval, in exact fractions."""

    def at(low, high, depth):
        ours = values[math.floor(low) : math.floor(high)]
        if len(ours) <= 1:
            return ours[0] if ours else None
        middle = (low + high) / 2
        left, right = at(low, middle, depth + 1), at(middle, high, depth + 1)
        return right if left is None else left if right is None else left + right

    return at(0, len(values), 0)


def leaves(count):
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(13, generator=generator) * 10.0**k for k in torch.randint(-3, 4, (count,)).tolist()]


def summed(values, node=None):
    known = lambda each: [values[leaf[0]].clone()] if len(leaf := each.leaves(len(values))) == 1 else None  # noqa: E731
    found = tree_sum(len(values), known, *([node] if node else []))
    return found and found[0]


@pytest.mark.parametrize("count", NUMBERS)
def test_a_sum_is_that_of_two_halves(count):
    values = leaves(count)
    assert torch.equal(summed(values), balanced(values))
    exact = torch.stack(values).double().sum(0)
    assert torch.allclose(summed(values).double(), exact, rtol=0, atol=1e-6 * float(torch.stack(values).abs().sum()))


def test_it_is_no_sum_in_a_row():
    values = leaves(37)
    assert not torch.equal(summed(values), sum(values[1:], values[0]))


@pytest.mark.parametrize("count", NUMBERS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_pieces_of_all_ranks_are_the_whole_in_order(count, size):
    found = []
    for rank in range(size):
        ours = share_of(rank, size, count)
        assert len(ours) in (count // size, -(-count // size))
        pieces = list(pieces_of(ours, count))
        assert [leaf for piece in pieces for leaf in piece.leaves(count)] == list(ours)
        assert len(pieces) <= (1 if size in (1, 2, 4, 8) else 2 * math.ceil(math.log2(count + 1)))
        found += pieces
    assert [leaf for piece in found for leaf in piece.leaves(count)] == list(range(count))


def test_only_a_few_sums_are_held():
    count, held, most = 1000, 0, 0

    class Counted:
        def __init__(self):
            nonlocal held, most
            held += 1
            most = max(most, held)

        def __del__(self):
            nonlocal held
            held -= 1

        def add_(self, other):
            return self

    tree_sum(count, lambda node: [Counted()] if len(node.leaves(count)) == 1 else None)
    assert 5 < most <= 12


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("count", [1, 3, 8, 11])
def test_ranks_add_up_to_the_bits_of_one_process(size, count):
    values = leaves(count)

    def work(ranks):
        total = RankSum(ranks, count, 13)
        ours = share_of(ranks.rank, size, count)
        total.load([summed(values, piece) for piece in pieces_of(ours, count)], values[0])
        return total.sum()

    expected = summed(values)
    assert all(torch.equal(found, expected) for found in on_ranks(size, work))


def test_a_node_covers_its_halves():
    for depth, place in [(0, 0), (2, 1), (3, 7)]:
        node = Node(depth, place)
        left, right = (half.leaves(37) for half in node.halves())
        assert [*left, *right] == list(node.leaves(37))
