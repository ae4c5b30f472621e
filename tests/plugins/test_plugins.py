"""The example packages: their own tests, and that an installed one is found with its distribution and version."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from installing import install
from test_dinov2 import *  # noqa: F403 - the package's own tests run here as well
from test_dit import *  # noqa: F403
from test_emoji import *  # noqa: F403

ROOT = Path(__file__).parents[2]
PACKAGES = sorted((ROOT / "plugins").glob("cmtool-*"))

FIND = """
import json, sys
from cmtool.options import registry
found = {}
for group, name in (("backbones", "dit"), ("datasets", "emoji"), ("features", "dinov2")):
    (entry,) = registry.providers(group)[name]
    found[name] = [name in registry.names(group), entry.dist.name, entry.dist.version]
    assert entry.module not in sys.modules
found["options"] = registry.options(registry.get("datasets", "emoji"))
found["file"] = sys.modules["cmtool_emoji"].__file__
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The packages as pip installs them, in a folder of their own."""
    return install(PACKAGES, tmp_path_factory.mktemp("site"))


def test_installed_packages_are_found_with_distribution_and_version(site):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    result = subprocess.run([sys.executable, "-c", FIND], env=environment, capture_output=True, text=True, cwd=site)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["dit"] == [True, "cmtool-dit", "0.1.0"]
    assert found["dinov2"] == [True, "cmtool-dinov2", "0.1.0"]
    assert found["emoji"] == [True, "cmtool-emoji", "0.1.0"]
    assert found["options"] == {"size": 32, "background": "white"}
    assert Path(found["file"]).parent == site


def test_a_wheel_holds_one_module_and_no_tests(site):
    assert sorted(path.name for path in site.glob("*.py")) == ["cmtool_dinov2.py", "cmtool_dit.py", "cmtool_emoji.py"]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_package_is_one_module_one_test_and_a_short_readme(package):
    kept = sorted(path.name for path in package.iterdir() if path.is_file())
    name = package.name.removeprefix("cmtool-")
    assert kept == ["README.md", f"cmtool_{name}.py", "pyproject.toml", f"test_{name}.py"]
    readme = (package / "README.md").read_text()
    assert f"pip install ./plugins/{package.name}" in readme
    assert len(readme.splitlines()) < 25
