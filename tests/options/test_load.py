# ruff: noqa: RUF009  (option() makes a dataclass field)
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import pytest

from cmtool import presets, settings
from cmtool.errors import MissingInput, UsageError
from cmtool.options import registry
from cmtool.options.data_spec import data_spec
from cmtool.options.fields import Options, option, option_fields
from cmtool.options.load import dump_options, load_options
from cmtool.options.types import Seeds, Spec, at_least
from cmtool.settings.files import OF_CHECKPOINTS, OF_IMAGES

CLASSES = [getattr(settings, name) for name in settings.__all__ if name != "TrainOptions"]
GIVEN = {
    "run": "runs/mine",
    "teacher": "t.safetensors",
    "operator": "inpaint",
    "input": "-",
    "source": "a",
    "ref": "b",
    "output": "c",
    "model": "m",
}


@dataclass(frozen=True, kw_only=True)
class Tried(Options):
    command: ClassVar = "try"
    refused: ClassVar = {"teacher": ("there is no teacher here", "go home")}

    steps: int = option(1, help="steps", check=at_least(1))
    micro_batch: int | None = option(None, help="micro", check=at_least(1))
    decay: str = option("linear", help="decay", choices=("linear", "cosine"))
    backbone: Spec = option(Spec(name="unet"), help="network", group="backbones")
    klass: int | str | None = option(None, help="class", key="class")
    levels: tuple[float, ...] | None = option(None, help="levels")
    optimizer: Spec = option(Spec(name="adam", betas=[0.9, 0.99]), help="optimizer", yaml_only=True)
    what: str = option("all", help="what", positional=True, metavar="WHAT")


@pytest.fixture
def config(tmp_path):
    """Write a file of options; its path."""

    def write(text, name="conf.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def message(*args, cls: type[Options] = Tried, **sources):
    with pytest.raises(UsageError) as caught:
        load_options(cls, *args, **{"environment": {}, **sources})
    return caught.value.message, caught.value.hint or ""


@pytest.fixture
def preset(tmp_path, monkeypatch):
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "quick.yaml").write_text("about: Quick.\ncommand: [try]\nsteps: 3\n")
    monkeypatch.setattr(presets.resources, "files", lambda package: tmp_path / "presets")


def test_each_source_wins_over_all_weaker_ones(config, preset):
    sources = [
        ("user", config("steps: 2\n", "user.yaml"), 2),
        ("preset", "quick", 3),
        ("configs", [config("steps: 0x\n".replace("0x", "9"), "first.yaml"), config("steps: 4\n")], 4),
        ("environment", {"CMTOOL_STEPS": "5"}, 5),
        ("sets", ["steps=99", "steps=6"], 6),
        ("flags", {"steps": "7"}, 7),
    ]
    assert load_options(Tried, {}, environment={}).steps == 1
    for i, (*_, wanted) in enumerate(sources):
        given = {name: value for name, value, _ in sources[: i + 1]}
        assert load_options(Tried, **{"flags": {}, "environment": {}, **given}).steps == wanted


def test_every_source_obeys_the_same_rules(config):
    file = config("micro-batch: 3\nsteps: 0\n")
    assert message({"steps": "0"})[0] == "--steps must be at least 1, not 0"
    assert message({}, ["steps=0"])[0] == "--set steps must be at least 1, not 0"
    assert message({}, configs=[file])[0] == f"'steps' in {file}, line 2, must be at least 1, not 0"
    assert message({}, environment={"CMTOOL_STEPS": "0"})[0] == "CMTOOL_STEPS must be at least 1, not 0"
    assert message({"steps": "abc"})[0] == "--steps must be a whole number, not 'abc'"
    assert message({}, configs=[config("steps: [1]\n")])[0].endswith("line 1, must be a whole number, not [1]")
    assert message({"micro_batch": "x"})[0] == "--micro-batch must be a whole number, not 'x'"
    assert message({"what": ""}, ["what=[]", "steps=0"])[0] == "--set steps must be at least 1, not 0"


def test_a_weak_source_is_judged_even_where_a_strong_one_wins(config):
    assert "line 1" in message({"steps": "3"}, configs=[config("steps: none\n")])[0]


def test_unknown_keys_name_their_source_and_the_nearest_key(config):
    file = config("steps: 3\nstpes: 4\n")
    assert message({}, configs=[file]) == (f"unknown option 'stpes' in {file}, line 2", "did you mean 'steps'?")
    assert message({}, ["stpes=4"]) == ("unknown option 'stpes' in --set", "did you mean 'steps'?")
    assert message({}, ["zzz=4"])[1].startswith("there are: backbone, class, decay")
    assert load_options(Tried, {}, environment={"CMTOOL_STPES": "4", "CMTOOL_CACHE": "/x"}).steps == 1


def test_choices_suggest():
    assert message({"decay": "cosin"}) == (
        "--decay must be one of linear, cosine, not 'cosin'",
        "did you mean 'cosine'?",
    )


def test_hyphens_and_underscores_are_the_same(config):
    assert load_options(Tried, {"micro-batch": "2"}, environment={}).micro_batch == 2
    assert load_options(Tried, {}, ["micro-batch=3"], environment={}).micro_batch == 3
    assert load_options(Tried, {}, configs=[config("micro-batch: 4\n")], environment={}).micro_batch == 4
    assert load_options(Tried, {}, environment={"CMTOOL_MICRO_BATCH": "5"}).micro_batch == 5


def test_a_key_may_differ_from_its_attribute(config):
    assert load_options(Tried, {"class": "-1"}, environment={}).klass == -1
    assert load_options(Tried, {}, configs=[config("class: dog\n")], environment={}).klass == "dog"
    assert load_options(Tried, {}, environment={"CMTOOL_CLASS": "3"}).klass == 3
    assert message({}, ["klass=3"]) == ("unknown option 'klass' in --set", "did you mean 'class'?")


def test_the_environment_sets_scalars_only_and_empty_says_nothing():
    loud = {"CMTOOL_BACKBONE": "mlp", "CMTOOL_LEVELS": "3", "CMTOOL_OPTIMIZER": "sgd", "CMTOOL_WHAT": "x"}
    assert load_options(Tried, {}, environment={**loud, "CMTOOL_STEPS": ""}) == load_options(Tried, {}, environment={})


def test_refused_keys_explain_themselves(config):
    for sources in ({"flags": {"teacher": "x"}}, {"sets": ["teacher=x"]}, {"configs": [config("teacher: x\n")]}):
        assert message(**{"flags": {}, **sources}) == ("there is no teacher here", "go home")
    assert message({"teacher": "x"}, cls=settings.TrainCtOptions)[0].startswith("train-ct learns from data alone")


def test_a_missing_teacher_is_asked_for():
    assert message({"data": "digits"}, cls=settings.DistillOptions) == (
        "distill needs --teacher FILE, a score model",
        "train one first: cmtool train-score",
    )


def test_a_plugin_keeps_the_options_that_were_meant_for_it(config):
    def network(*args, **sources):
        return load_options(Tried, *args, **{"environment": {}, **sources}).backbone

    wide = config("backbone: {name: unet, width: 96}\n")
    assert network({}, ["backbone.width=192"]) == {"name": "unet", "width": 192}
    assert network({"backbone": "mlp"}, ["backbone.width=192"]) == {"name": "mlp", "width": 192}
    assert network({"backbone": "mlp"}, configs=[wide]) == {"name": "mlp"}
    assert network({"backbone": "unet"}, configs=[wide]) == {"name": "unet", "width": 96}
    assert network({}, ["backbone.dropout=1e-1"], configs=[wide]) == {"name": "unet", "width": 96, "dropout": 0.1}
    assert network({}, ["backbone=mlp", "backbone.depth=3"]) == {"name": "mlp", "depth": 3}
    assert network({}, ["backbone={name: mlp, depth: 4}"]) == {"name": "mlp", "depth": 4}
    assert network({}, ["backbone.attention-levels=[1, 2]"]) == {"name": "unet", "attention_levels": [1, 2]}


def test_a_default_stays_as_it_was():
    load_options(Tried, {}, ["optimizer.betas=[0, 0]", "optimizer.lr=1"], environment={})
    assert load_options(Tried, {}, environment={}).optimizer == {"name": "adam", "betas": [0.9, 0.99]}


def test_unknown_plugins_and_parts_that_are_none():
    assert message({"backbone": "uent"}) == ("unknown network architecture 'uent'", "did you mean 'unet'?")
    assert message({}, ["steps.x=3"])[0] == "--set steps.x: option 'steps' has no parts"
    assert message({}, ["steps"])[0] == "--set must be KEY=VALUE, not 'steps'"
    assert message({}, ["=3"])[0] == "--set must be KEY=VALUE, not '=3'"
    assert message({}, ["backbone.width=[1"])[0].startswith("--set backbone.width, line 1 is not YAML")


def test_the_users_own_file_may_hold_options_of_other_commands_but_no_mistakes(config):
    file = config("model: m.safetensors\nteacher: t.safetensors\nn: 5\n")
    found = load_options(settings.SampleOptions, {}, environment={}, user=file)
    assert (found.model, found.n) == (Path("m.safetensors"), 5)
    wrong = config("modle: m.safetensors\n")
    assert message({}, cls=settings.SampleOptions, user=wrong) == (
        f"unknown option 'modle' in {wrong}, line 1",
        "did you mean 'model'?",
    )


def test_files_that_are_none(config, tmp_path):
    with pytest.raises(MissingInput, match=r"there is no file nope\.yaml"):
        load_options(Tried, {}, configs=["nope.yaml"], environment={})
    (tmp_path / "binary").write_bytes(b"\x89PNG\xff\xfe")
    assert message({}, configs=[tmp_path / "binary"])[0] == f"{tmp_path / 'binary'} is not a text file"
    assert message({}, configs=[tmp_path])[0] == f"{tmp_path} is not a text file"


def test_presets_say_whom_they_are_for(preset):
    assert message({}, preset="quick", cls=settings.InfoOptions) == ("preset 'quick' is not for info", "it is for: try")
    assert message({}, preset="quack") == ("unknown preset 'quack'", "did you mean 'quick'?")


OTHER = {  # a value unlike the default for every kind of option
    int: "7",
    float: "0.25",
    bool: "yes",
    str: "text: 'quoted' # é",
    Path: "a b/c",
    Seeds: "3,5-9",
    Spec: "{side: 16}",
    tuple[float, ...]: "70,0.5",
    tuple[int, ...]: "0,22,39",
}
SPECIAL = {
    "device": "cuda:1",
    "sigma_max": "90",
    "guidance_interval": "0.2,5",
    "decay": "cosine",
    "precision": "bf16",
    "dtype": "fp16",
    "shard": "3/8",
    "metrics": "fid,kid",
    "size": "48x64",
    "channels": "3",
    "save_every": "5000img",
    "allow_change": "precision",
    "eval_every": "50kimg",
    "eval_ema": "1500,power:0.05",
    "ema": "1500,power:0.05",
    "ema_dtype": "fp16",
    "data": "folder:pictures[0::2]",
    "optimizer": "{name: sgd, momentum: 1e-3, text: '1e-3'}",
}

# Options that do not go together: those that each way to use a command leaves out, and what it has instead.
PACKED = {"target": "a.zip"}
APART = {settings.ConvertOptions: ((OF_IMAGES.keys(), {}), (OF_CHECKPOINTS.keys() | {"target", "output"}, PACKED))}


def another(d):
    """Text that sets an option to something else."""
    if d.group and d.key != "data":
        return registry.names(d.group)[-1]
    if d.choices and d.key not in SPECIAL:
        return next(choice for choice in d.choices if choice != d.default)
    kinds = [d.kind, *getattr(d.kind, "__args__", ())]
    return SPECIAL.get(d.key) or next(OTHER[kind] for kind in kinds if kind in OTHER)


@pytest.mark.parametrize("cls", CLASSES)
def test_what_is_printed_is_a_config_that_gives_the_same_options(cls, config):
    required = {key: GIVEN[key] for key in option_fields(cls) if key in GIVEN}
    changed = {key: f"{key}={another(d)}" for key, d in option_fields(cls).items()}
    ways = APART.get(cls, ((set(), {}),))
    for left_out, instead in ((changed.keys(), required), *ways):
        sets = [text for key, text in changed.items() if key not in left_out]
        options = load_options(cls, instead, sets, environment={})
        again = load_options(cls, {}, configs=[config(dump_options(options))], environment={})
        assert again == options
        assert [type(getattr(again, f.name)) for f in fields(cls)] == [
            type(getattr(options, f.name)) for f in fields(cls)
        ]
        assert dump_options(again) == dump_options(options)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_option_is_explained_and_its_flag_is_its_own(cls):
    declared = list(option_fields(cls).values())
    assert all(d.help and not d.help.endswith(".") and d.help == d.help.strip() for d in declared)
    short = [d.flag for d in declared if d.flag] + ["-c", "-q", "-h"]
    assert len(short) == len(set(short))
    for d in declared:
        if d.group and d.default is not None and isinstance(d.default, Spec):
            assert d.default.name in registry.names(d.group)


@pytest.mark.parametrize(
    ("text", "name", "source", "part"),
    [
        ("digits", "digits", None, None),
        ("digits[0::2]", "digits", None, "0::2"),
        ("digits[-100:]", "digits", None, "-100:"),
        ("folder:a/b", "folder", "a/b", None),
        ("folder:a[1]/b[1:2]", "folder", "a[1]/b", "1:2"),
        ("./a", "folder", "./a", None),
        ("/a:b", "folder", "/a:b", None),
        ("~/a", "folder", "~/a", None),
        ("pictures", "folder", "pictures", None),
        ("pictures[:5]", "folder", "pictures", ":5"),
    ],
)
def test_data_is_named_in_one_word(text, name, source, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "digits").mkdir()  # a data set's name means the data set
    assert data_spec(text) == {"name": name, "source": source, "slice": part}


@pytest.mark.parametrize("part", ["0:1:0", "a", "0:b", "1", "", "0:1:2:3", "::-0"])
def test_a_slice_that_is_none(part):
    with pytest.raises(UsageError, match="is no part of a data set"):
        data_spec(f"digits[{part}]")


def test_naming_the_data_set_again_takes_all_of_it(config):
    half = config("data: digits[0::2]\n")
    assert load_options(settings.TrainCtOptions, {}, configs=[half], environment={}).data == {
        "name": "digits",
        "slice": "0::2",
    }
    flags = {"data": "digits"}
    assert load_options(settings.TrainCtOptions, flags, configs=[half], environment={}).data == {"name": "digits"}


def test_noise_levels_must_be_in_order():
    assert message({"sigma_min": "3"}, ["sigma_max=2"], cls=settings.TrainCtOptions)[0] == (
        "sigma_min (3) must be below sigma_max (2)"
    )
