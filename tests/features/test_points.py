import pytest
import torch

from cmtool.errors import UsageError
from cmtool.features.points import points
from cmtool.options import registry
from cmtool.options.hint_words import word_hint


def test_points_are_their_own_features():
    x = torch.tensor([[0.25, -3.0], [1e6, 0.0]], dtype=torch.float64)
    features = points()
    assert torch.equal(features(x), x.float())
    assert (features.dim, features.label) == (2, "FD-points")
    assert features.fingerprint != points(dim=3).fingerprint


def test_images_and_other_dimensions_are_refused():
    with pytest.raises(UsageError, match="not images"):
        points()(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(UsageError, match="have 3") as caught:
        points()(torch.zeros(4, 3))
    assert word_hint(caught.value.hint or "") == "--set features.dim=3"
    with pytest.raises(UsageError, match="option 'dim' of feature extractor 'points' must be at least 1, not 0"):
        registry.build("features", {"name": "points", "dim": 0})
