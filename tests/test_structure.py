"""The layers of docs/design.md, the light start, and what the source must not contain."""

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from cmtool.catalogue import COMMANDS

PACKAGE = Path(__file__).parents[1] / "cmtool"
FILES = {
    ".".join(("cmtool", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in FILES.items()}

HEAVY = {"torch", "torchvision", "numpy", "scipy", "sklearn", "PIL", "cleanfid", "safetensors"}
L0 = {"errors", "options", "settings", "presets", "help_pages", "catalogue", "failures", "startup"}
L0 |= {
    "class_names",
    "completion",
    "data_paths",
    "plugin_pages",
    "plugin_reference",
    "plugin_usage",
    "text_files",
    "user_paths",
}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
SCRIPTS = {"cmtool.features.train_small"}  # run by hand, once, to make a file that ships
PLUGIN = {"errors", "options.plugin_option", "options.types"}  # what any room of plugins may use
LAYERS = {  # a folder or file of the package, and what else of the package it may import
    **dict.fromkeys(L0, L0 | {"cmtool"}),
    "pictures": {"errors", "picture_kinds", "png"},
    "picture_kinds": set(),
    "png": set(),
    "label_files": set(),
    "assets": {"errors", "user_paths"},
    "core": PLUGIN | {"options.registry"},
    "objectives": PLUGIN | {"core", "options.registry", "assets"},
    "backbones": PLUGIN,
    "datasets": PLUGIN | {"pictures", "user_paths", "label_files", "data_paths", "files.safe_pickle"},
    "features": PLUGIN | {"pictures", "assets"},
    "loggers": PLUGIN | {"files"},
    "training": PLUGIN | {"core", "objectives", "datasets", "options.registry", "options.ema_spec"},
    "bundled": {"files", "errors"},
    "formats": PLUGIN | {"backbones.adm", "files", "core", "options.registry", "text_files"},
    "evaluation": PLUGIN | {"features", "core", "objectives", "options.registry", "files.safe_pickle"},
    "files": {"core", "assets", "options.registry", "options.yaml_files", "errors", "pictures", "picture_kinds", "png"}
    | {"text_files", "user_paths", "label_files"},
    "pipelines": {"errors", "options", "settings", "class_names", "text_files", "user_paths", "cmtool", "assets"}
    | {"data_paths"}
    | {"core", "objectives", "training", "evaluation", "features", "files", "datasets", "pictures", "bundled"},
    "commands": L0
    | {"pipelines", "core", "objectives", "training", "evaluation", "features", "files", "datasets", "pictures"}
    | {"loggers"}
    | {"bundled", "assets", "cmtool"},
    "testing": {"backbones", "datasets", "core", "objectives", "evaluation", "features", "loggers", "errors"},
    "cli": L0 | {"commands.console", "cmtool"},
    "__main__": {"cli", "startup"},
    "cmtool": {"files", "bundled", "pipelines"},
}


def imports(name):
    """Every module that a file imports, wherever in it: cmtool's own by full name, others by package."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            assert node.module
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else node.module


def room(name):
    """The row of the table a module belongs to: its folder, or itself at the top."""
    return name.split(".")[1] if "." in name else name


OURS = {name: {found for found in imports(name) if found.split(".")[0] == "cmtool"} for name in FILES}


@pytest.mark.parametrize("name", FILES)
def test_layers(name):
    allowed = LAYERS[room(name)]
    for found in OURS[name]:
        inside = found.removeprefix("cmtool.")
        assert room(found) == room(name) or {room(found), inside, inside.rpartition(".")[0]} & allowed, (
            f"{name} imports {found}"
        )


def documented_layers():
    """The table of docs/design.md: a folder or file of the package, and the folders and files that it may import."""
    section = (PACKAGE.parent / "docs" / "design.md").read_text("utf-8").partition("## Layers")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| (`.*) \| (.*) \|$", section, re.MULTILINE):
        names, allowed = (set(re.findall(r"`(\w+)`", cell.partition(":")[0])) for cell in row)
        yield from dict.fromkeys(names, allowed | (L0 if "the ground" in row[1] else set())).items()


def test_the_layers_are_documented():
    rooms = {name: {other.split(".")[0] for other in allowed - {"cmtool"}} for name, allowed in LAYERS.items()}
    assert dict(documented_layers()) == rooms


def test_no_cycles():
    graph = {name: found - {name} for name, found in OURS.items() if name != "cmtool"}
    TopologicalSorter({name: found - {"cmtool"} for name, found in graph.items()}).prepare()


@pytest.mark.parametrize("name", [name for name in FILES if room(name) in L0 | {"cmtool", "cli", "__main__"}])
def test_the_bottom_and_the_command_line_know_no_torch(name):
    assert not {found.split(".")[0] for found in imports(name)} & HEAVY


def test_only_one_file_knows_typer():
    users = {name for name in FILES for found in imports(name) if found.split(".")[0] in ("typer", "click")}
    assert users == {"cmtool.cli"}
    assert "click" not in imports("cmtool.cli")


def test_only_commands_speak():
    for name in FILES:
        if room(name) in {"commands", "cli", "failures"} or name in SCRIPTS:
            continue
        assert not {"print", "input"} & set(called(name)), f"{name} prints"
        assert not {"logging", "rich"} & {found.split(".")[0] for found in imports(name)}


LOWER = {
    "pipelines",
    "core",
    "objectives",
    "training",
    "evaluation",
    "files",
    "formats",
    "datasets",
    "features",
    "backbones",
    "assets",
}
FLAG = re.compile(rf"(?:^|[ '`(])--[a-z]|\bcmtool (?:{'|'.join(COMMANDS)})\b")
OTHERS = re.compile(r"\b(?:tar|curl) -[^,;:]*")  # commands of other programs


@pytest.mark.parametrize("name", [name for name in FILES if room(name) in LOWER])
def test_the_command_line_alone_names_flags(name):
    """Below ``commands`` an error names an option by a ``Setting`` and a command by a ``Run``."""
    docs = {ast.get_docstring(node, clean=False) for node in ast.walk(TREES[name]) if isinstance(node, DOCUMENTED)}
    texts = [n.value for n in ast.walk(TREES[name]) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    found = [text for text in texts if text not in docs and FLAG.search(OTHERS.sub("", text))]
    assert not found


def called(name):
    """The dotted names that a file calls, with the calls themselves."""
    return {ast.unparse(node.func): node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_unpickled_and_no_text_becomes_code(name):
    found = {module.split(".")[0] for module in imports(name)}
    assert not found & {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
    assert not {"eval", "exec", "compile", "__import__", "torch.hub.load", "yaml.load"} & set(called(name))
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Call):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert given.get("allow_pickle", "False") == "False"
            assert "trust_remote_code" not in given
            if ast.unparse(node.func) == "torch.load":
                assert given.get("weights_only") == "True"


LIGHT = """
import contextlib, io, json, os, sys
import cmtool
heavy = set(sys.argv[1].split(","))
found = {"import cmtool": sorted(heavy & set(sys.modules))}
from cmtool.cli import COMMANDS, run
calls = [[], ["--help"], ["--version"], ["nope"], ["--nope"], ["--show-completion"], ["info"], ["info", "presets"],
         ["info", "solvers"], ["info", "methods", "--json"], ["info", "digits-ect"], ["info", "nope"]]
for name in COMMANDS:
    calls += [[name, "--help"], [name, "--nope"], [name, "--set", "nope=1"], [name, "--device", "nope"],
              [name, "-c", "nope.yaml"], [name, "--preset", "nope"], [name, "--print-config"]]
calls += [["distill", "-d", "digits"], ["train-ct", "--teacher", "a"], ["train-ct", "--data", "nope"],
          ["train-ct", "--method", "nope"], ["train-ct", "--print-config"], ["sample", "--steps", "0"], ["edit"],
          ["edit", "nope", "a.png"], ["fid", "a", "--metrics", "nope"], ["sample", "--print-sbatch", "array=2"],
          ["train-ct", "--run-dir", "a", "--print-sbatch"], ["train-ct", "--print-sbatch"], ["status", "nope"]]
def attempt(call):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert run(call) in (0, 2, 66) or "completion" in call[0], call  # a job without a shell has none to show
    return sorted(heavy & set(sys.modules))
for call in calls:
    found[" ".join(call)] = attempt(call)
for words in ("cmtool sa", "cmtool sample --st", "cmtool train-ct --data dig", "cmtool train-ct --preset d",
              "cmtool train-ct --set method.", "cmtool sample --set solver.churn=", "cmtool info he"):
    os.environ.update(_CMTOOL_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    found["completing " + words] = attempt([])
print(json.dumps({call: modules for call, modules in found.items() if modules}))
"""


def test_pages_completion_and_argument_errors_start_without_torch():
    command = [sys.executable, "-c", LIGHT, ",".join(HEAVY)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout) == {}
