import errno
import json
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

from cmtool import cli, errors, failures, help_pages, plugin_pages, plugin_usage, settings
from cmtool.cli import COMMANDS, reference, run
from cmtool.options import registry
from cmtool.options.fields import option_fields
from cmtool.options.load import load_options

ROOT = Path(__file__).parents[1]
ERROR = re.compile(r"cmtool: error: [^\n]+\n(  hint: [^\n]+\n)?")


@pytest.fixture
def fail(capsys):
    """The exit code, sentence and hint of a call that fails without a word on standard output."""

    def call(*argv):
        code = run(argv)
        out, err = capsys.readouterr()
        assert ERROR.fullmatch(err), err
        assert out == ""
        lines = [*err.splitlines(), ""]
        return code, lines[0].removeprefix("cmtool: error: "), lines[1].removeprefix("  hint: ")

    return call


@pytest.fixture
def command(monkeypatch):
    """Put a function in the place of the commands; the calls it got."""

    def install(function):
        monkeypatch.setitem(sys.modules, "fake_command", types.SimpleNamespace(run=function))
        for name, known in COMMANDS.items():
            fake = help_pages.Command(known.options, "fake_command:run", known.summary, known.examples)
            monkeypatch.setitem(COMMANDS, name, fake)

    return install


@pytest.mark.parametrize(
    ("argv", "sentence", "hint"),
    [
        ("sampel", "unknown command 'sampel'", "did you mean 'sample'?"),
        ("--verison", "unknown option '--verison'", "did you mean '--version'?"),
        ("sample --stpes 3", "unknown option '--stpes'", "did you mean '--steps'?"),
        ("sample -z", "unknown option '-z'", "cmtool sample --help"),
        ("sample --steps", "option '--steps' requires an argument", "cmtool sample --help"),
        ("sample --steps 0", "--steps must be at least 1, not 0", ""),
        ("sample --steps -3", "--steps must be at least 1, not -3", ""),
        ("sample --seed=-1", "--seed must be from 0 to 9223372036854775807, not -1", ""),
        ("sample extra", "got unexpected extra argument(s) (extra)", "cmtool sample --help"),
        ("sample --set stpes=3", "unknown option 'stpes' in --set", "did you mean 'steps'?"),
        ("train-ct --flip=3", "option '--flip' does not take a value", "cmtool train-ct --help"),
        ("train-ct --data nope", "unknown data set 'nope'", "*"),
        ("train-ct --method cd", "unknown consistency-training method 'cd'", "*"),
        ("train-ct --preset nope", "unknown preset 'nope'", "*"),
        ("train-ct --teacher a", "train-ct learns from data alone and takes no teacher", "*"),
        ("distill -d digits", "distill needs --teacher FILE, a score model", "train one first: cmtool train-score"),
        ("distill --sigma-data 1 -t a", "distill takes the sigma_data of its teacher", "*"),
        ("edit inpant a.png", "unknown editing task 'inpant'", "did you mean 'inpaint'?"),
        ("interp 3 --frames x", "--frames must be a whole number, not 'x'", ""),
    ],
)
def test_usage_errors_are_one_sentence_and_a_hint(argv, sentence, hint, fail):
    code, found, hinted = fail(*argv.split())
    assert (code, found) == (2, sentence)
    assert hint in ("*", hinted)


def test_errors_are_json_too(capsys):
    assert run(["sample", "--json", "-c", "nope.yaml"]) == 66
    out, err = capsys.readouterr()
    sentence, hint, document = err.splitlines()
    assert json.loads(document) == {
        "error": {
            "code": 66,
            "message": sentence.removeprefix("cmtool: error: "),
            "hint": hint.removeprefix("  hint: "),
        }
    }
    assert out == ""


def test_what_was_typed_reaches_the_command(command, capsys):
    seen = []
    command(lambda options, console: seen.append((options, console)))
    assert (
        run(["sample", "-n5", "-k", "2", "--class", "-1", "--set", "threads=3", "--seeds", "0-4", "-q", "--json"]) == 0
    )
    options, console = seen[0]
    assert (options.n, options.steps, options.klass, options.threads, str(options.seeds)) == (5, 2, "-1", 3, "0-4")
    assert (console.command, console.quiet, console.json) == ("sample", True, True)
    assert run(["train-ct", "--flip", "--no-conditional"]) == 0
    assert (seen[1][0].flip, seen[1][0].conditional) == (True, False)
    assert run(["edit", "superres", "-", "--factor", "4"]) == 0
    assert (seen[2][0].operator, seen[2][0].input, seen[2][0].factor) == ({"name": "superres"}, "-", 4)
    assert capsys.readouterr() == ("", "")


def test_config_files_and_the_users_own(command, tmp_path, monkeypatch):
    seen = []
    command(lambda options, console: seen.append(options))
    monkeypatch.setattr(cli, "config_folder", lambda: tmp_path)
    (tmp_path / "config.yaml").write_text("model: mine.safetensors\nlr: 1e-2\nn: 3\n")
    (tmp_path / "a.yaml").write_text("n: 4\nsteps: 2\n")
    assert run(["sample", "-c", str(tmp_path / "a.yaml"), "--set", "steps=3"]) == 0
    assert (seen[0].model, seen[0].n, seen[0].steps) == (Path("mine.safetensors"), 4, 3)
    monkeypatch.setenv("CMTOOL_MODEL", "theirs.safetensors")
    assert run(["sample"]) == 0
    assert seen[1].model == Path("theirs.safetensors")


@pytest.mark.parametrize("name", COMMANDS)
def test_printed_options_are_a_config(name, capsys, tmp_path):
    required = {
        "distill": "-t a",
        "edit": "denoise in.png",
        "fid": "a -r b",
        "convert": "a -o b",
        "status": "a",
        "search-sigmas": "a -r b",
    }.get(name, "")
    assert run([name, *required.split(), "--print-config"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "a.yaml").write_text(printed)
    assert run([name, "-c", str(tmp_path / "a.yaml"), "--print-config"]) == 0
    assert capsys.readouterr() == (printed, "")


def test_pages(capsys):
    assert run([]) == 0
    empty = capsys.readouterr()
    assert run(["--help"]) == 0
    assert capsys.readouterr() == empty
    assert all(name in empty.out for name in COMMANDS)
    assert run(["--version"]) == 0
    assert re.fullmatch(r"cmtool \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_the_page_examples_first(name, capsys):
    assert run([name, "-h"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.index("Examples:") < out.index("For every command:")
    assert "\033" not in out
    assert all(len(line) <= help_pages.WIDTH for line in out.splitlines())
    for d in option_fields(COMMANDS[name].options).values():
        assert (d.metavar if d.positional else d.key if d.yaml_only else d.long) in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_call_that_can_be(name, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command(lambda options, console: None)
    for call, remark in COMMANDS[name].examples:
        assert remark
        for part in re.sub(r"[<>] \S+", "", call).split("|"):
            assert run(part.split()[1:]) == 0


def test_on_a_terminal_headings_stand_out_unless_asked_not_to(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.delenv("NO_COLOR", raising=False)
    run(["sample", "--help"])
    page = capsys.readouterr().out
    assert "\033[1mExamples:\033[0m\n" in page
    assert max(map(len, page.splitlines())) <= 75
    monkeypatch.setenv("NO_COLOR", "1")
    run(["sample", "--help"])
    assert "\033" not in capsys.readouterr().out


def test_the_documented_pages_are_the_pages():
    documented = (ROOT / "docs" / "commands.md").read_text("utf-8")
    how = 'python -c "from cmtool.cli import reference; print(reference(), end=str())" > docs/commands.md'
    assert documented == reference(), how


def test_every_exit_code_is_documented():
    codes = {
        kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CmtoolError)
    }
    assert {code for code, _ in help_pages.exit_codes()} == codes | {0, failures.CLOSED_PIPE}


class OutOfMemoryError(RuntimeError):
    """What torch calls it."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (errors.BadFile("the file is torn", "fetch it again"), 65, "the file is torn"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OutOfMemoryError("CUDA out of memory. Tried to ..."), 71, "there is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), 71, "there is not enough memory"),
        (MemoryError(), 71, "there is not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device", "out.png"), 74, "out.png: no space left on device"),
        (OSError(errno.ENOENT, "No such file or directory", "a.png"), 66, "a.png: no such file or directory"),
        (PermissionError(errno.EACCES, "Permission denied", "/srv/a"), 74, "/srv/a: permission denied"),
        (OSError("odd"), 74, "odd"),
        (ValueError("two\nlines"), 1, "internal error: ValueError: two lines"),
    ],
)
def test_every_failure_is_a_sentence_and_a_code(error, code, words, command, fail):
    def work(options, console):
        raise error

    command(work)
    assert fail("info")[:2] == (code, words)


def test_a_traceback_only_on_request(command, capsys, monkeypatch):
    def work(options, console):
        raise ZeroDivisionError("oops")

    command(work)
    assert run(["info", "--debug"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-2] == "cmtool: error: internal error: ZeroDivisionError: oops"
    monkeypatch.setenv("CMTOOL_DEBUG", "1")
    run(["info"])
    assert "Traceback" in capsys.readouterr().err


def process(*argv, **options):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, "-m", "cmtool", *argv], check=False, text=True, **pipes)


def test_a_closed_pipe_ends_quietly():
    read, write = os.pipe()
    os.close(read)
    done = process("sample", "--print-config", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_no_closed_pipe():
    with open("/dev/full", "w") as full:
        done = process("--help", stdout=full)
    assert (done.returncode, done.stderr) == (74, "cmtool: error: no space left on device\n")


def test_no_name_of_a_file_breaks_the_line(fail):
    assert fail("info", "a\n\033[1m\udcff")[1] == "there is no file a\\n\\x1b[1m\\udcff"


def test_no_locale_is_too_small(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = process("train-ct", "--run-dir", "naïve→", "--print-config", env=environment)
    (tmp_path / "a.yaml").write_text(done.stdout, encoding="ascii")
    assert load_options(settings.TrainCtOptions, {}, configs=[tmp_path / "a.yaml"], environment={}).run_dir == Path(
        "naïve→"
    )
    done = process("info", "naïve→", env=environment)
    assert (done.returncode, done.stderr.splitlines()[0]) == (66, "cmtool: error: there is no file na\\xefve\\u2192")


def test_closed_streams_do_no_harm():
    call = f"'{sys.executable}' -m cmtool info nope"
    page = f"'{sys.executable}' -m cmtool --help >&-"
    done = subprocess.run(
        f"{page} && {call} >&- 2>&-; {call} 2>&-", shell=True, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (66, "", "")


def complete(words, capsys, monkeypatch):
    """What the shell would offer after ``words``."""
    monkeypatch.setenv("_CMTOOL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    assert run([]) == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("cmtool sa", ["sample"]),
        ("cmtool sample --st", ["--steps"]),
        ("cmtool train-ct --data dig", ["digits"]),
        ("cmtool train-ct --lr-schedule co", ["constant", "cosine"]),
        ("cmtool train-ct --preset dig", ["digits-cpu", "digits-ecd", "digits-ect"]),
        ("cmtool edit inp", ["inpaint"]),
        ("cmtool train-ct --method ec", ["ect"]),
        ("cmtool sample --solver heu", ["heun"]),
        ("cmtool sample --schedule kar", ["karras"]),
        ("cmtool sample --process sub", ["subvp"]),
        ("cmtool train-score --backbone song", ["songunet"]),
        ("cmtool fid --features sm", ["small"]),
        ("cmtool info heu", ["heun"]),
        ("cmtool info solv", ["solvers"]),
        ("cmtool info digits-e", ["digits-ecd", "digits-ect"]),
        ("cmtool info shapes-s", ["shapes-stable", "shapes-score"]),
    ],
)
def test_completion_knows_commands_options_and_plugins(words, offered, capsys, monkeypatch):
    assert complete(words, capsys, monkeypatch) == offered


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("train-ct --set meth", ["method=", "method."]),
        ("train-ct --set fli", ["flip="]),
        ("train-ct --set flip=", ["flip=true", "flip=false"]),
        ("train-ct --set lr_schedule=co", ["lr_schedule=constant", "lr_schedule=cosine"]),
        ("train-ct --set method=ec", ["method=ect"]),
        ("train-ct --method ect --set method.q", ["method.q=", "method.quantize="]),
        ("train-ct --set method=ect --set method.quan", ["method.quantize=", "method.quantize=0"]),
        ("train-ct --set method.name=ect --set method.quan", ["method.quantize=", "method.quantize=0"]),
        ("train-ct --preset digits-ect --set method.quan", ["method.quantize=", "method.quantize=0"]),
        ("train-ct --preset digits-ect --method tcm --set method.quan", []),
        ("train-ct --method ect --set method.quantize=", ["method.quantize=0"]),
        ("train-ct --set method.sigma_m", []),  # which --sigma-min says
        ("train-ct --method nope --set method.", []),
        ("train-ct --data digits[0::2] --set data.si", ["data.size=", "data.size=8"]),
        ("train-ct --backbone adm --set backbone.model", ["backbone.model_channels=", "backbone.model_channels=64"]),
        ("sample --set solver.churn_n", ["solver.churn_noise=", "solver.churn_noise=1"]),
        ("sample --solver unipc --set solver.ord", ["solver.order=", "solver.order=3"]),
        ("sample --set schedule.rh", ["schedule.rho=", "schedule.rho=7"]),
        ("sample --set schedule.sigma_ma", ["schedule.sigma_max=", "schedule.sigma_max=80"]),
        ("sample --process ve --set process.scal", [f"process.scaling={s}" for s in ("", "own", "vp", "none")]),
        ("sample --set process.beta_ma", ["process.beta_max=", "process.beta_max=none"]),
        ("sample --set solver.none=", []),
        ("sample --set steps.", []),
        ("sample --set nope.x", []),
    ],
)
def test_completion_knows_the_options_of_plugins(words, offered, capsys, monkeypatch):
    assert complete(f"cmtool {words}", capsys, monkeypatch) == offered


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("train-ct\n--method\n=\nec", ["ect"]),
        ("train-ct\n--set\nmethod\n=\nec", ["ect"]),
        ("train-ct\n--method\n=\nect\n--set\nmethod.quantize\n=", ["0"]),
        ("train-ct\n--set\n=\nmethod.q\n=", ["2"]),
        ("train-ct\n--method\n=\nect\n--set\nmethod.quan", ["method.quantize=", "method.quantize=0"]),
    ],
)
def test_words_that_bash_splits_at_the_equals_sign(words, offered, capsys, monkeypatch):
    monkeypatch.setenv("_CMTOOL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"cmtool\n{words}")
    monkeypatch.setenv("COMP_CWORD", str(words.count("\n") + 1))
    assert run([]) == 0
    assert capsys.readouterr().out.split() == offered


def test_zsh_is_told_what_an_option_is(capsys, monkeypatch):
    monkeypatch.setenv("_CMTOOL_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "cmtool train-ct --method ect --set lr_sch")
    assert run([]) == 0
    assert "learning-rate decay after the warmup" in capsys.readouterr().out


@pytest.mark.parametrize("group", plugin_usage.groups())
def test_every_example_of_a_plugin_is_a_call_that_can_be(group, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command(lambda options, console: None)
    for name in registry.names(group):
        plugin = plugin_pages.describe(group, name)
        words = shlex.split(plugin.example)
        assert run(words[1:]) == 0, words
        assert name in " ".join(words) or group == "formats"


@pytest.mark.parametrize("name", COMMANDS)
def test_pages_say_where_the_options_of_plugins_are(name, capsys):
    run([name, "--help"])
    page = " ".join(capsys.readouterr().out.split())
    for d in option_fields(COMMANDS[name].options).values():
        if d.group and (shown := plugin_usage.USAGE[d.group].shown):
            plugin, option, value = shown
            assert f"cmtool info {plugin}; set with --set {d.key}.{option}={value}" in page
            assert option in registry.options(registry.factory(d.group, plugin))
