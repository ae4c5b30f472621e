"""Names that are no Unicode, that have spaces, that begin with ~, and that are links."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image
from tiny import NETWORK, TINY, random_model

import cmtool
from cmtool.cli import COMMANDS
from cmtool.datasets.folder import folder
from cmtool.errors import UsageError
from cmtool.files.checkpoint import check_header
from cmtool.files.header import read_header
from cmtool.options.fields import option_fields

LATIN = "caf\udce9"  # how Python reads the name of a file in Latin-1
FAST = ["--images", "64", "--batch", "32", "--warmup", "0", "--snapshots", "0"]


@pytest.fixture
def classes(tmp_path):
    """A folder of two pictures for each class."""

    def make(root, *names):
        for k, name in enumerate(names):
            (root / name).mkdir(parents=True)
            for i in range(2):
                pixels = np.random.default_rng([k, i]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / f"{i}.png")
        return root

    return make


def test_classes_and_paths_that_are_no_unicode_are_trained_on_and_opened(well, cm, classes, tmp_path):
    root = classes(tmp_path / f"data-{LATIN}", LATIN, "tea", "thé")
    run = tmp_path / f"run-{LATIN}"
    well("train-score", "--data", root, *NETWORK, *FAST, "--run-dir", run)
    header = read_header(run / "model.safetensors", whole=True)
    assert header.classes == ("caf\\xe9", "tea", "thé")
    assert header.options["data"]["source"].endswith("data-caf\\xe9")
    assert header.document() == json.loads(json.dumps(header.document(), ensure_ascii=False).encode())
    assert "caf" in well("info", run)
    told = json.loads(well("sample", "-m", run, "--class", LATIN, "-n", 1, "-k", 2, "-o", tmp_path / "s", "--json"))
    assert told["class"] == 0
    assert "going on" in cm("train-score", "--resume", run, "--images", 96).err
    made = tmp_path / f"student-{LATIN}"
    well("distill", "--teacher", run, "--data", root, *FAST, "--run-dir", made)
    assert read_header(made / "model.safetensors").parents[0]["path"].endswith("run-caf\\xe9/model.safetensors")
    copy = tmp_path / "copy.safetensors"
    well("convert", made, copy)
    assert cmtool.load(copy).header.classes == header.classes


def test_names_of_a_dataset_json_that_are_no_unicode(classes, tmp_path):
    root = classes(tmp_path / "d", "a", "b")
    labels = [[f"{name}/{i}.png", k] for k, name in enumerate("ab") for i in range(2)]
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "class_names": ["\ud83d", "\ud83d\ude00"]}))
    assert folder(root).classes == ("\\ud83d", "\U0001f600")


def test_a_header_that_could_not_be_read_is_refused_at_the_start(cm, classes, tmp_path):
    model = cmtool.load(random_model(tmp_path / "m.safetensors", (3, 8, 8), 3))
    check_header(model.header, model.model)
    model.header.data["classes"] = [f"{'x' * 3_000_000}{k}" for k in range(3)]
    with pytest.raises(UsageError, match=r"would take 9,\d+,\d+ bytes, and 8,388,608 are read"):
        check_header(model.header, model.model)
    root = classes(tmp_path / "d", "a", "b")
    labels = [[f"{name}/{i}.png", k] for k, name in enumerate("ab") for i in range(2)]
    (root / "dataset.json").write_text(
        json.dumps({"labels": labels, "class_names": ["é" * 80_000, "ü" * 80_000]}, ensure_ascii=False)
    )
    told = cm("train-score", "--data", root, *NETWORK, *FAST, "--run-dir", tmp_path / "r", "--set", "data.size=8")
    assert told.code == 0, "it is large, and can be read"
    assert len(read_header(tmp_path / "r" / "model.safetensors").classes[0]) == 80_000


def test_commands_that_are_told_can_be_typed(cm, well, trained, tmp_path):
    run = tmp_path / "my run's $1"
    told = cm("train-score", "-d", "digits", *TINY, "--run-dir", run)
    model = str(run / "model.safetensors")
    assert f"cmtool sample --model {shlex.quote(model)}" in told.err
    again = cm("train-score", "--resume", run, "--images", 64)
    assert f": cmtool train-score --run-dir {shlex.quote(str(run))} --images" in again.error[1]
    other = cm("train-ct", "--resume", run)
    assert other.error[1] == f"go on with it by: cmtool train-score --resume {shlex.quote(str(run))}"
    copy = tmp_path / "a copy.safetensors"
    assert f"cmtool sample --model {shlex.quote(str(copy))}" in cm("convert", run, copy).err
    assert shlex.quote(str(copy)) in well("info", copy)


def test_every_option_that_may_name_a_path_writes_the_home_out():
    words = ("FILE", "FOLDER", "OUT", "IN", "SOURCE", "REF", "an image", "a run", "or image")
    for name, command in COMMANDS.items():
        for key, d in option_fields(command.options).items():
            told = f"{d.help} {d.metavar}".replace("--output", "")
            if d.kind in (str, str | None) and any(word in told.split() or f" {word}" in told for word in words):
                assert d.path or d.choices or key in ("class", "save_every", "shard"), f"{name} {key}"


def test_the_home_in_operands_and_options(well, cm, rgb, classes, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    classes(home / "pics", "a")
    well("edit", "denoise", "~/pics/a", "-m", rgb, "--level", 1, "--output=~/made/")
    well("interp", "~/pics/a/0.png", 3, "-m", rgb, "--frames", 2, "--output=~/w.npz")
    (tmp_path / "c.yaml").write_text("output: ~/s.zip\n")
    well("sample", "-m", rgb, "-n", 1, "-c", tmp_path / "c.yaml")
    assert {"made", "w.npz", "s.zip"} <= {path.name for path in home.iterdir()}
    assert len(list((home / "made").glob("*.png"))) == 2
    assert not (tmp_path / "~").exists()
    assert cm("sample", "-m", rgb, "-o", "").error[0] == "--output must be a path, not ''"


@pytest.mark.parametrize("name", ["x.tar", "x.zip", "x.npy", "x.png", "x"])
def test_images_go_where_a_link_leads_and_are_taken_up_there(well, rgb, tmp_path, name):
    (tmp_path / "big").mkdir()
    (tmp_path / name).symlink_to(f"big/{name}")
    words = ("sample", "-m", rgb, "-n", 2, "-o", tmp_path / name, "--json")
    made = json.loads(well(*words))
    again = json.loads(well(*words))
    assert (made["made"], again["made"]) == (2, 2 if name == "x.png" else 0)
    assert (tmp_path / name).is_symlink()
    assert [path.name for path in tmp_path.iterdir() if path.name not in (name, "big")] == []
    assert (tmp_path / "big" / name).exists()


def test_an_empty_file_may_be_written_over_and_one_that_is_not_may_not(well, cm, rgb, tmp_path):
    for name in ("w.png", "c.safetensors"):
        (tmp_path / name).touch()
    well("interp", 1, 2, "-m", rgb, "--frames", 2, "-o", tmp_path / "w.png")
    well("convert", rgb, tmp_path / "c.safetensors")
    (tmp_path / "mine.png").write_bytes(b"1")
    assert "did not make it" in cm("interp", 1, 2, "-m", rgb, "--frames", 2, "-o", tmp_path / "mine.png").error[0]
