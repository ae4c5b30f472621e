"""Every recorded case through the claim of its kind; ids are ``group/case``."""

from importlib import import_module
from pathlib import Path

import harness
import pytest

if not harness.ROOT.is_dir():
    pytest.skip("no golden data: set CMTOOL_GOLDENS to the folder that holds it", allow_module_level=True)

for claims in sorted(Path(__file__).parent.glob("claims_*.py")):
    import_module(claims.stem)  # which registers them

FOLDERS = harness.folders()


@pytest.fixture(scope="module")
def golden():
    return harness.helpers()


def test_every_case_is_claimed():
    unclaimed = [harness.name_of(folder) for folder in FOLDERS if harness.kind_of(folder) not in harness.CLAIMS]
    assert FOLDERS, f"no case below {harness.ROOT}"
    assert not unclaimed, f"no claim for {', '.join(unclaimed)}"


def test_every_recorded_file_belongs_to_a_case():
    recorded = {path.parent for pattern in ("io.safetensors", "expected.json") for path in harness.ROOT.rglob(pattern)}
    assert recorded <= set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=harness.name_of)
def test_case(folder, golden):
    prove = harness.CLAIMS[harness.kind_of(folder)]
    case = harness.Case(folder, golden)
    prove(case)
    assert not case.open, f"recorded but neither checked nor left: {', '.join(sorted(case.open))}"
