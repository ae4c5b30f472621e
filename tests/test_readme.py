"""Every command line of the documents runs, in the order in which a reader meets it."""

import re
import shutil

import pytest
import slurm
from documents import ROOT, run
from installing import install

BLOCK = re.compile(r"(?:<!-- no-test: ([^\n]+) -->\n+)?^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What installs, and what would call these tests from within themselves.
CUT = re.compile(r"python3? -m venv |\S*pip install |\S*pytest\b")
EXAMPLES = re.compile(r"pip install \./(examples/\S+)")  # installed for the document alone
LENGTH = re.compile(r"(?<= )(-n|--images) \d{3,}")
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
DOCUMENTS = [page for page in PAGES if BLOCK.search(page.read_text())]


def shortened(line):
    """A line without its installation, with ``.venv/bin/X`` as ``X``, on a hundred images."""
    parts = [part.strip() for part in line.split("&&")]
    kept = " && ".join(part for part in parts if not CUT.match(part)).replace(".venv/bin/", "")
    return LENGTH.sub(r"\1 100", kept)


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_blocks_run(document, tmp_path, tmp_path_factory):
    packages = [ROOT / path for path in EXAMPLES.findall(document.read_text())]
    site = install(packages, tmp_path_factory.mktemp("site")) if packages else None
    clustered = re.search(r"\b(sbatch|torchrun)\b", document.read_text())  # torchrun of this interpreter, that is
    programs = slurm.install(tmp_path_factory.mktemp("slurm")) if clustered else None
    for reason, language, text in BLOCK.findall(document.read_text()):
        if reason:
            continue
        if language == "python":
            run(["python", "-c", text], tmp_path, site, programs)
        elif script := "\n".join(filter(None, map(shortened, text.splitlines()))):
            run(["bash", "-euo", "pipefail", "-c", script], tmp_path, site, programs)


def test_hardly_a_block_is_left_out():
    reasons = [match[1] for path in DOCUMENTS for match in BLOCK.finditer(path.read_text()) if match[1]]
    assert len(reasons) <= 2, reasons


def test_a_block_can_be_left_out_with_a_reason():
    text = "<!-- no-test: it is slow -->\n\n```bash\na\n```\n\n```bash\nb\nc\n```\n"
    assert BLOCK.findall(text) == [("it is slow", "bash", "a\n"), ("", "bash", "b\nc\n")]


def test_lines_are_shortened_as_they_say():
    install = "python3 -m venv .venv && .venv/bin/pip install '.[test]' && "
    assert shortened(install + ".venv/bin/cmtool sample -n 2000 -o x") == "cmtool sample -n 100 -o x"
    assert shortened(install + ".venv/bin/pytest") == ""
    assert shortened("cmtool interp 3 13 -n 8") == "cmtool interp 3 13 -n 8"
