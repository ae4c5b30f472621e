"""Several averages in one run, and those rebuilt from what it stored."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY, listing

from cmtool.files.checkpoint import digest, load
from cmtool.files.header import read_header

TRACKS = ["--ema", "64,power:0.1,power:0.2,constant:0.9", "--ema-snapshots", "4"]
WORDS = ["train-score", "-d", "digits", *TINY, *TRACKS]
MOMENTS = (32, 64, 96, 128)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from cmtool.cli import run

    folder = tmp_path_factory.mktemp("averages") / "run"
    assert run([*WORDS, "--run-dir", str(folder), "--threads", "1", "--quiet"]) == 0
    return folder


def weights(path):
    return torch.cat([p.detach().flatten() for p in load(path).model.parameters()])


def test_every_average_is_a_checkpoint_of_its_own(run, well, tmp_path):
    names = {f"ema/power-{w}-{at:08d}.safetensors" for w in (0.1, 0.2) for at in MOMENTS}
    names |= {f"ema/{name}.safetensors" for name in ("power-0.1", "power-0.2", "constant-0.9")}
    assert {name for name in listing(run) if name.startswith("ema/")} == names
    headers = {name: read_header(run / name, whole=True) for name in (*names, "model.safetensors")}
    assert headers["model.safetensors"].average == {"ema": "half-life:64"}
    stored = headers["ema/power-0.2-00000096.safetensors"]
    assert (stored.average, stored.images) == ({"ema": "power:0.2"}, 96)
    assert torch.equal(weights(run / "ema/power-0.1.safetensors"), weights(run / "ema/power-0.1-00000128.safetensors"))
    twice = 2 + 1  # a power average stored at the end is the one of now, and each begins as the first weights
    assert len({weights(run / name).sum().item() for name in names}) == len(names) - twice
    well("sample", "-m", run / "ema/power-0.1-00000064.safetensors", "-n", "2", "-k", "2", "-o", tmp_path / "out")


def test_more_averages_change_nothing_of_the_first(run, well, tmp_path):
    well("train-score", "-d", "digits", *TINY, "--ema", "64", "--run-dir", tmp_path / "one")
    assert torch.equal(weights(tmp_path / "one/model.safetensors"), weights(run / "model.safetensors"))


def test_an_interrupted_run_keeps_every_average_to_the_bit(run, cm, stopped, tmp_path):
    assert stopped(*WORDS).code == 130
    late = tmp_path / "run/ema/power-0.1-00000096.safetensors"
    late.write_text("written by a run that was killed")
    (late.parent / ".tmp-1-ab").write_text("half")
    assert cm("train-score", "--resume", tmp_path / "run").code == 0
    ours, theirs = listing(tmp_path / "run"), listing(run)
    assert {name for name in ours if name.startswith("ema/")} == {name for name in theirs if name.startswith("ema/")}
    for name in theirs:
        if name.endswith(".safetensors"):
            assert ours[name] == theirs[name], name


def test_the_log_has_the_gap(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == list(MOMENTS)
    assert all(line["ema_gap"] > 0 for line in lines)
    tensors = load_file(run / "states/00000128.safetensors")
    ours, theirs = (
        torch.cat(
            [
                tensors[f"{kind}.net.{name}"].flatten()
                for name, _ in load(run / "model.safetensors").model.net.named_parameters()
            ]
        )
        for kind in ("average", "model")
    )
    assert lines[-1]["ema_gap"] == pytest.approx(float((ours - theirs).norm() / theirs.norm()), rel=1e-5)


def test_what_was_stored_is_rebuilt_to_the_rounding(run, well, tmp_path):
    out = tmp_path / "out.safetensors"
    assert well("convert", run, "--ema-width", "0.2", "-o", out) == f"{out}\n"
    kept = weights(run / "ema/power-0.2.safetensors")
    assert torch.allclose(weights(out), kept, rtol=2**-22, atol=1e-9)


def test_another_width_is_rebuilt_and_says_of_what(run, well, cm, tmp_path):
    out = tmp_path / "out.safetensors"
    told = cm("convert", run, "--ema-width", "0.14", "-o", out, "--json")
    assert (told.code, "made of 8 stored averages" in told.err) == (0, True)
    document, header = json.loads(told.out), read_header(out, whole=True)
    assert document["average"] == header.average
    assert (header.average["ema"], header.images, header.kind) == ("power:0.14", 128, "score")
    assert 0 < header.average["residual"] < 0.05
    assert header.average["condition"] > 1 <= header.average["gain"]
    parts = header.average["made_of"]
    assert {(part["ema"], part["images"]) for part in parts} == {
        (f"power:{w}", at) for w in (0.1, 0.2) for at in MOMENTS
    }
    assert [(p["path"], p["sha256"]) for p in header.parents] == [(p["path"], digest(p["path"])) for p in parts]
    summed = sum(part["weight"] * weights(part["path"]).double() for part in parts)
    assert torch.allclose(weights(out).double(), summed, rtol=2**-23, atol=1e-12)
    assert well("convert", run, "--ema-width", "0.14", "-o", tmp_path / "again.safetensors", "-q")
    assert (tmp_path / "again.safetensors").read_bytes() == out.read_bytes()


def test_a_width_that_the_stored_cannot_make_is_warned_of(run, cm, tmp_path):
    told = cm("convert", run, "--ema-width", "0.01", "-o", tmp_path / "out.safetensors")
    assert told.code == 0
    assert "the stored averages cannot make width 0.01 well" in told.err


@pytest.mark.parametrize(("dtype", "bits"), [("fp16", 11), ("bf16", 8)])
def test_precision_of_the_file(run, well, tmp_path, dtype, bits):
    out, source = tmp_path / "half.safetensors", run / "model.safetensors"
    well("convert", run, "-o", out, "--dtype", dtype)
    assert out.stat().st_size < 0.6 * source.stat().st_size
    full, half = load_file(source), load_file(out)
    learned = {name for name, _ in load(source).model.net.named_parameters()}
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert all(half[name].dtype == (kind if name in learned else full[name].dtype) for name in full)
    assert all(torch.equal(half[name], full[name]) for name in full.keys() - learned)
    assert torch.allclose(weights(out), weights(source), rtol=2.0**-bits, atol=1e-7)
    header = read_header(out)
    assert header.parents == [{"path": str(source), "sha256": digest(source)}]
    assert header.average == {"ema": "half-life:64"}


def test_stored_averages_may_be_of_half_the_size(well, tmp_path):
    well(*WORDS, "--ema-dtype", "fp16", "--run-dir", tmp_path / "run")
    tensors = load_file(tmp_path / "run/ema/power-0.1-00000064.safetensors")
    assert {t.dtype for name, t in tensors.items() if not name.endswith("frequencies")} == {torch.float16}
    well("convert", tmp_path / "run", "--ema-width", "0.15", "-o", tmp_path / "out.safetensors")
    assert np.isfinite(weights(tmp_path / "out.safetensors").numpy()).all()
    assert {t.dtype for t in load_file(tmp_path / "out.safetensors").values()} == {torch.float32}


def test_weights_that_are_too_large_for_a_precision(cm, tmp_path, rgb):
    from cmtool.files.checkpoint import save

    model = load(rgb)
    with torch.no_grad():
        next(model.model.parameters()).flatten()[0] = 1e5
    save(tmp_path / "big.safetensors", model.model, model.header)
    told = cm("convert", tmp_path / "big.safetensors", "-o", tmp_path / "half.safetensors", "--dtype", "fp16")
    assert (told.code, told.error[1]) == (2, "use --dtype bf16 or fp32")
    assert not (tmp_path / "half.safetensors").exists()


def test_info_lists_the_averages_of_a_run(run, well):
    document = json.loads(well("info", run, "--json"))
    assert document["header"] == read_header(run / "model.safetensors").document()
    listed = [(a["track"], a["images"]) for a in document["averages"]]
    assert listed[:2] == [("half-life:64", 128), ("constant:0.9", 128)]
    assert listed.count(("power:0.1", 64)) == 1
    assert len(listed) == 12
    text = well("info", run)
    assert all(a["path"] in text and a["track"] in text for a in document["averages"])


def test_what_cannot_be_rebuilt(cm, trained, run, tmp_path):
    told = cm("convert", trained["tuned"], "--ema-width", "0.1", "-o", tmp_path / "out.safetensors")
    sentence = f"{trained['tuned']} holds no power averages"
    assert (told.code, told.error) == (66, (sentence, "train with --ema 1500,power:0.05,power:0.1"))
    told = cm("convert", run / "model.safetensors", "--ema-width", "0.1", "-o", tmp_path / "out.safetensors")
    assert (told.code, told.error[0]) == (
        2,
        f"--ema-width needs a run directory, and {run / 'model.safetensors'} is none",
    )
    told = cm("convert", run, "--ema-width", "0.4", "-o", tmp_path / "out.safetensors")
    assert (told.code, told.error[0]) == (2, "--ema-width must be from 0.005 to 0.288, not 0.4")
    assert cm("convert", run).error[0] == "convert needs a file to write to"
    told = cm("train-ct", "--ema", "power:0.5")
    assert told.code == 2
    assert told.error[0].startswith(
        "--ema must be half-lives in images (0: no average), decays such as 0.9999, power:WIDTH"
    )
