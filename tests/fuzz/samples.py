"""Sound files of every kind that cmtool reads, and the commands that read them."""

import contextlib
import io
import json
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[1] / "formats"))

from adm_nets import weights
from adm_nets import write as adm
from diffusers_nets import tiny
from edm_nets import magnitudes, narrow_adm, song, text
from flax_files import write as flax
from kdiffusion_files import slim, training
from mutations import Change, bytes_of, document, member, png_chunk, sealed_document, table, words
from score_sde_files import network as ncsnpp
from score_sde_files import write as score_sde

from cmtool.cli import run
from cmtool.files.checkpoint import save
from cmtool.formats.diffusers_writer import write_diffusers as diffusers

__all__ = ["Form", "build"]

ADM = ["format.kind=consistency", "format.side=16", "backbone.num_head_channels=16"]


@dataclass(frozen=True)
class Form:
    """A kind of file: which file of the form's folder is changed, how, and the commands, of which one is taken."""

    name: str
    file: str
    changes: Sequence[Change]
    commands: Sequence[Sequence[str]]


def sets(*said: str) -> list[str]:
    return [word for one in said for word in ("--set", one)]


def reading(file: str, *said: str) -> list[list[str]]:
    """Commands that read a model."""
    given = sets(*said)
    return [["info", file, *given], ["info", file, "--json", *given], ["convert", file, "made.safetensors", *given]]


def sampling(file: str) -> list[str]:
    return ["sample", "-m", file, "-n", "2", "-o", "made.npz", "--threads", "1"]


def quiet(*argv: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert run([*argv, "--threads", "1"]) == 0, argv  # a pool of threads would not survive the fork


def build(root: Path) -> list[Form]:
    """Write a folder for each form below ``root``."""
    return [*ours(root), *foreign(root), *pictures(root), *statistics(root), *texts(root)]


def folder(root: Path, name: str) -> Path:
    (root / name).mkdir(parents=True)
    return root / name


def ours(root: Path) -> list[Form]:
    model = tiny(channel_mult=(1,), attn_resolutions=(), classes=2)
    for name in ("checkpoint", "table"):
        save(folder(root, name) / "net.safetensors", model.model, model.header)
    commands = [*reading("net.safetensors"), sampling("net.safetensors")]
    forms = [
        Form("checkpoint", "net.safetensors", (sealed_document, sealed_document, bytes_of, words), commands),
        Form("table", "net.safetensors", (table, bytes_of), commands),
    ]
    made = root / "made"
    options = ["--data", "digits[:16]", "-b", "8", "--backbone", "mlp", *sets("backbone.hidden_dim=4")]
    quiet("train-score", *options, "-n", "32", "--snapshots", "0", "--run-dir", str(made))
    going = (made / "config.yaml").read_text().replace("images: 32", "images: 40")
    for file, changes in {
        "status.json": (document, words, bytes_of),
        "metrics.jsonl": (document, words, bytes_of),
        "config.yaml": (words, words, bytes_of),
        "states/00000032.safetensors": (sealed_document, table, bytes_of),
        "model.safetensors": (sealed_document, table, bytes_of),
    }.items():
        run_folder = folder(root, f"run-{Path(file).name}") / "run"
        (run_folder / "states").mkdir(parents=True)
        (run_folder / ".lock").touch()
        for name in ("status.json", "metrics.jsonl", "states/00000032.safetensors", "model.safetensors"):
            (run_folder / name).write_bytes((made / name).read_bytes())
        (run_folder / "config.yaml").write_text(going)
        status = json.loads((made / "status.json").read_text()) | {"state": "interrupted"}
        (run_folder / "status.json").write_text(json.dumps(status))
        resume = ["train-score", "--resume", "run", "--threads", "1"]
        forms.append(Form(f"run-{Path(file).name}", f"run/{file}", changes, [resume, resume, ["info", "run"]]))
    return forms


def foreign(root: Path) -> list[Form]:
    made = {name: folder(root, name) / "net" for name in ("openai", "score_sde", "kdiffusion", "training", "jcm")}
    zipped, raw = (member, member, bytes_of), (bytes_of, words)
    adm(made["openai"], channel_mult=(1,), attn_resolutions=())
    score_sde(made["score_sde"], channel_mult=(1,), attn_resolutions=(16,))
    slim(made["kdiffusion"])
    training(made["training"])
    flax(made["jcm"], ncsnpp())
    torch.save(
        weights(channel_mult=(1,), attn_resolutions=()),
        folder(root, "old") / "net",
        _use_new_zipfile_serialization=False,
    )
    for name, make in {"edm": narrow_adm, "edm-song": song, "edm2": magnitudes}.items():
        (folder(root, name) / "net").write_bytes(text(make("")))
    forms = [
        Form("openai", "net", zipped, reading("net", *ADM)),
        Form("old", "net", raw, reading("net", *ADM)),
        Form("score_sde", "net", zipped, reading("net", "format.side=16")),
        Form("kdiffusion", "net", (table, *raw), reading("net")),
        Form("training", "net", zipped, reading("net")),
        Form("jcm", "net", raw, reading("net", "format.kind=score", "format.side=16", "backbone.attn_resolutions=[8]")),
        *(Form(name, "net", raw, reading("net")) for name in ("edm", "edm-song", "edm2")),
    ]
    model = tiny(channel_mult=(1,), attn_resolutions=())
    for file in ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        name = f"diffusers-{Path(file).name}"
        diffusers(folder(root, name) / "net", model.model, model.header)
        changes = (document, words, bytes_of) if file.endswith("json") else (sealed_document, table, bytes_of)
        forms.append(Form(name, f"net/{file}", changes, reading("net")))
    return forms


def pictures(root: Path) -> list[Form]:
    images = root / "images"
    quiet("sample", "-n", "4", "-o", str(images), "--device", "cpu")
    pngs = sorted(images.glob("**/*.png"))
    reference = root / "ref.npz"
    quiet("fid", "shapes[:8]", "--make-ref", "--features", "small", "-o", str(reference))
    fid = ["fid", "{}", "--ref", "ref.npz", "--features", "small", "--threads", "1"]
    forms = []
    for kind in ("zip", "tar", "npz", "npy", "png"):
        at = folder(root, kind)
        (at / "ref.npz").write_bytes(reference.read_bytes())
        quiet("sample", "-n", "4", "-o", str(at / f"x.{kind}"), "--device", "cpu")
        changes = {"zip": (member, bytes_of), "npz": (member, bytes_of), "png": (png_chunk, bytes_of)}
        commands = [[word.format(f"x.{kind}") for word in fid]]
        forms.append(Form(kind, f"x.{kind}", changes.get(kind, (bytes_of, words)), commands))
    for name, file in {"picture": pngs[0].name, "manifest": "manifest.jsonl"}.items():
        at = folder(root, name)
        (at / "ref.npz").write_bytes(reference.read_bytes())
        (at / "x").mkdir()
        for path in images.rglob("*"):
            if path.is_file():
                (at / "x" / path.relative_to(images)).parent.mkdir(parents=True, exist_ok=True)
                (at / "x" / path.relative_to(images)).write_bytes(path.read_bytes())
        place = next(path for path in (at / "x").rglob(file)).relative_to(at)
        again = ["sample", "-n", "4", "-o", "x", "--threads", "1", "--device", "cpu"]
        edit = ["edit", "colorize", str(place), "-o", "made", "--threads", "1"]
        commands = [[word.format("x") for word in fid], again] if name == "manifest" else [edit]
        changes = (document, words, bytes_of) if name == "manifest" else (png_chunk, png_chunk, bytes_of)
        forms.append(Form(name, str(place), changes, commands))
    return forms


def statistics(root: Path) -> list[Form]:
    rows = np.random.default_rng(0).standard_normal((90, 64)).astype(np.float32)
    held = {"mu": rows.mean(0).astype(np.float64), "sigma": np.cov(rows, rowvar=False)}
    forms = []
    for file in ("ref.npz", "ref.pkl", "ref.pt", "edm2.pkl", "feats.npz"):
        at = folder(root, f"statistics-{file}")
        np.savez(at / "a.npz", **held)
        if file == "feats.npz":
            np.savez(at / file, feats=rows)
        elif file.endswith(".npz"):
            np.savez(at / file, **held, n=np.array(90), features=np.array("small"))
        elif file == "ref.pt":
            torch.save(held, at / file)
        else:
            (at / file).write_bytes(
                pickle.dumps(held if file == "ref.pkl" else {"fid": held, "small": held, "num_images": 90})
            )
        changes = (bytes_of, words) if file.endswith(".pkl") else (member, member, bytes_of)
        forms.append(
            Form(
                f"statistics-{file}",
                file,
                changes,
                [["fid", "a.npz", "--ref", file, "--features", "small", "--threads", "1"]],
            )
        )
    return forms


def texts(root: Path) -> list[Form]:
    forms = []
    for command in ("sample", "train-ct", "edit"):
        inputs = ["colorize", "a.png"] if command == "edit" else []
        at = folder(root, f"yaml-{command}") / "c.yaml"
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert run([command, "--print-config", *inputs]) == 0
        at.write_text(out.getvalue())
        commands = [[command, "-c", "c.yaml", "--print-config"]]
        forms.append(Form(f"yaml-{command}", "c.yaml", (words, words, bytes_of), commands))
    at = folder(root, "beside")
    adm(at / "net.pt", channel_mult=(1,), attn_resolutions=())
    (at / "net.pt.yaml").write_text("format: {kind: consistency, side: 16}\nbackbone:\n  num_head_channels: 16\n")
    forms.append(Form("beside", "net.pt.yaml", (words, words, bytes_of), [["info", "net.pt"]]))
    return forms
