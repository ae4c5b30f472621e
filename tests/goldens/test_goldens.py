"""Every recorded case through the claim of its kind; ids are ``group/case``."""

from importlib import import_module
from pathlib import Path

import harness
import pytest
from pending import PENDING

if not harness.ROOT.is_dir():
    pytest.skip("no golden data: set CMTOOL_GOLDENS to the folder that holds it", allow_module_level=True)

for claims in sorted(Path(__file__).parent.glob("claims_*.py")):
    import_module(claims.stem)  # which registers them

FOLDERS = harness.folders()


@pytest.fixture(scope="module")
def golden():
    return harness.helpers()


def test_every_case_is_claimed():
    known = harness.CLAIMS.keys() | PENDING.keys()
    unclaimed = [harness.name_of(folder) for folder in FOLDERS if harness.kind_of(folder) not in known]
    assert FOLDERS, f"no case below {harness.ROOT}"
    assert not unclaimed, f"no claim for {', '.join(unclaimed)}"


def test_every_recorded_file_belongs_to_a_case():
    recorded = {path.parent for pattern in ("io.safetensors", "expected.json") for path in harness.ROOT.rglob(pattern)}
    assert recorded <= set(FOLDERS)


def test_nothing_is_both_claimed_and_pending():
    assert not harness.CLAIMS.keys() & PENDING.keys()


def row(folder: Path):
    """The case; where its method is still to come, one that fails for want of a claim and for nothing else."""
    issue = PENDING.get(harness.kind_of(folder))
    marks = [pytest.mark.xfail(reason=f"brought by: {issue}", strict=True, raises=KeyError)] if issue else []
    return pytest.param(folder, id=harness.name_of(folder), marks=marks)


@pytest.mark.parametrize("folder", [row(folder) for folder in FOLDERS])
def test_case(folder, golden):
    prove = harness.CLAIMS[harness.kind_of(folder)]
    case = harness.Case(folder, golden)
    prove(case)
    assert not case.open, f"recorded but neither checked nor left: {', '.join(sorted(case.open))}"
    unread = case.spec.unread() if isinstance(case.spec, harness.Settings) else []
    assert not unread, f"settings that the claim did not read: {', '.join(unread)}"
