"""What is published: the archive of the sources, the wheel, and what both say of themselves."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
import yaml
from documents import ROOT

import cmtool

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
CHANGES = (ROOT / "CHANGELOG.md").read_text("utf-8")
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]  # of Keep a Changelog, in its order


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with both archives, built without a network."""
    pytest.importorskip("hatchling", reason="building without a network needs hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_sources_hold_all_that_is_needed_to_work_on_them(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.*"),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "examples").rglob("*.py"),
        *(ROOT / "plugins").glob("*/pyproject.toml"),
        *(ROOT / "cmtool").rglob("*.safetensors"),
    ]
    others = {"LICENSE", "CITATION.cff", "pyproject.toml", ".ci/run", ".github/workflows/ci.yml"}
    others.add(".pre-commit-config.yaml")
    assert sorted((others | {p.relative_to(ROOT).as_posix() for p in wanted if p.is_file()}) - names) == []
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".git/"))]


def test_the_wheel_holds_the_package_alone(built):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    assert {name.split("/")[0] for name in names} == {"cmtool", f"cmtool-{cmtool.__version__}.dist-info"}
    assert [name for name in names if name.endswith("/licenses/LICENSE")]
    for said in ("Author: the cmtool developers", "License-Expression: Apache-2.0", f"Version: {cmtool.__version__}"):
        assert said in metadata.splitlines()


def test_links_of_the_project_go_to_one_repository():
    links = PROJECT["urls"]
    assert links.keys() == {"Documentation", "Changelog", "Source", "Issues"}
    assert all(link.startswith(links["Source"]) for link in links.values())
    assert CITATION["repository-code"] == links["Source"]


def test_the_citation_is_whole_and_of_this_version():
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION.keys() >= {"message", "title", "authors", "type", "version", "license"}
    assert str(CITATION["version"]) == cmtool.__version__
    assert CITATION["license"] == PROJECT["license"]
    assert [author["name"] for author in CITATION["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert CITATION["references"][0]["url"].endswith("2303.01469")
    for reference in CITATION["references"]:
        assert reference.keys() >= {"type", "title", "authors", "year", "url"}
        assert all(author.keys() == {"family-names", "given-names"} for author in reference["authors"])


def test_the_changelog_begins_with_what_is_unreleased_and_dates_what_is_not():
    first, *released = re.findall(r"^## \[([^\]]+)\](?: - (\d{4}-\d\d-\d\d))?$", CHANGES, re.MULTILINE)
    assert first == ("Unreleased", "")
    assert len(released) + 1 == CHANGES.count("\n## ")
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) and date for version, date in released)
    assert CITATION.get("date-released") is None or str(CITATION["date-released"]) == released[0][1]
    for version in ["Unreleased", *(version for version, _ in released)]:
        assert f"\n[{version}]: {PROJECT['urls']['Source']}/" in CHANGES


def test_changes_are_sorted_by_kind():
    for section in CHANGES.split("\n## ")[1:]:
        kinds = re.findall(r"^### (.+)$", section, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]


def test_the_public_workflow_does_what_ci_does_with_no_rights():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert any(step.get("run") == ".ci/run" for step in steps)
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    assert "secrets" not in (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")


def test_hooks_run_the_linters_of_ci():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    assert [hook["name"] for hook in hooks] == ["ruff check", "ruff format", "pyright"]
    assert {hook["language"] for hook in hooks} == {"system"}
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert all(f".venv/bin/{hook['name']}" in script for hook in hooks)
