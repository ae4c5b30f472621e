import ast
import json
from pathlib import Path

from cmtool.text_files import dump_json

PACKAGE = Path(__file__).parents[1] / "cmtool"
# The one function; the state of a run, which is ours alone and keeps every number; what is hashed or stays inside.
FREE = {
    "text_files.py",
    "files/container.py",
    "files/safe_pickle/sandbox.py",
    "commands/shared/manifest.py",
    "commands/interp.py",
}


def test_what_is_not_finite_is_null_wherever_it_stands():
    nan, infinite = float("nan"), float("inf")
    document = {"a": infinite, "b": [nan, 1.5, (-infinite, 2)], "c": {"d": {"e": nan}}, "f": "NaN", "g": True}
    assert json.loads(dump_json(document)) == {
        "a": None,
        "b": [None, 1.5, [None, 2]],
        "c": {"d": {"e": None}},
        "f": "NaN",
        "g": True,
    }
    assert dump_json({"x": Path("a")}, default=str) == '{"x": "a"}'


def test_nobody_else_writes_json():
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump")
    }
    assert users == FREE
