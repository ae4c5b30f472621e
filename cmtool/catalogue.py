"""The commands: the options of each, where it lives, what it is for, and lines to try."""

from cmtool import settings
from cmtool.help_pages import Command

__all__ = ["BATCH_FILE", "COMMANDS"]

BATCH_FILE = "cmtool.commands.batch_file:run"

ADVICE = (  # what the tables of docs/benchmarks.md and docs/solvers.md support
    ("a consistency model", "none: --steps 1, or 2 for better images"),
    ("5 to 20 NFE", "--solver dpmpp-2m"),
    ("about 36 NFE", "--solver heun, the default; --set solver.churn=8 also corrects errors of the network"),
    ("100 NFE and more", "--sampler euler-maruyama and the like; --solver rk45 for a given accuracy"),
)

COMMANDS = {
    "train-score": Command(
        settings.TrainScoreOptions,
        "cmtool.commands.train:run",
        "Train a score model (a diffusion model) on images",
        (
            ("cmtool train-score --data digits", "on the embedded handwritten digits"),
            ("cmtool train-score --data ./pictures --set data.size=32", "on a folder of images"),
        ),
        batch=True,
    ),
    "distill": Command(
        settings.DistillOptions,
        "cmtool.commands.train:run",
        "Distil a score model into a consistency model, which samples in one step",
        (
            (
                "cmtool distill --teacher teacher.safetensors --data digits",
                "the student starts with the teacher's weights",
            ),
        ),
        batch=True,
    ),
    "train-ct": Command(
        settings.TrainCtOptions,
        "cmtool.commands.train:run",
        "Train a consistency model from images alone",
        (
            ("cmtool train-ct", "on procedural shapes, minutes on two cores"),
            ("cmtool train-ct --data digits --init teacher.safetensors", "from the weights of a score model"),
        ),
        batch=True,
    ),
    "sample": Command(
        settings.SampleOptions,
        "cmtool.commands.sample:run",
        "Draw images from a model",
        (
            ("cmtool sample", "64 images of the newest run, else of the bundled model, and a sheet"),
            ("cmtool sample -n 256 -o - | cmtool fid - --ref digits --features small", "as a pipe"),
        ),
        ADVICE,
        batch=True,
    ),
    "edit": Command(
        settings.EditOptions,
        "cmtool.commands.edit:run",
        "Inpaint, outpaint, colorize, enlarge, denoise, deblur, or turn strokes into images",
        (
            ("cmtool edit inpaint photo.png --mask mask.png -o out.png", "paint what the mask shows white"),
            ("cmtool edit colorize - -o - < grey.png > colour.png", "as a filter"),
            ("cmtool edit superres small/ --variants 4 --report sheet.png -o large/", "four of each of a folder"),
        ),
    ),
    "interp": Command(
        settings.InterpOptions,
        "cmtool.commands.interp:run",
        "Interpolate between two images, or between four",
        (
            ("cmtool interp 3 7 --frames 12 -o strip.png", "twelve images from seed 3 to seed 7"),
            ("cmtool interp a.png b.png --frames 24 -o morph.webp", "from image to image, animated"),
            ("cmtool interp 3 7 11 15 --frames 6 -o grid.png", "a grid between four corners"),
        ),
    ),
    "fid": Command(
        settings.FidOptions,
        "cmtool.commands.fid:run",
        "FID and other distances between two sets of images",
        (
            ("cmtool fid samples --ref digits --features small", "FD-small, without a download"),
            ("cmtool fid samples.tar --ref cifar10.npz --protocol edm", "FID against reference statistics"),
            ("cmtool fid samples.zip --ref digits --features small --metrics fid,kid,prdc", "several at once"),
            ("cmtool fid --make-ref digits --features small -o ref.npz", "reference statistics, for other tools too"),
        ),
    ),
    "fetch": Command(
        settings.FetchOptions,
        "cmtool.commands.fetch:run",
        "Download published weights, such as those of FID's network",
        (
            ("cmtool fetch", "what there is, and what is downloaded already"),
            ("cmtool fetch inception", "the network of FID, 96 MB"),
        ),
    ),
    "likelihood": Command(
        settings.LikelihoodOptions,
        "cmtool.commands.likelihood:run",
        "Likelihood of images under a score model, in bits per dimension",
        (("cmtool likelihood -m teacher.safetensors --data digits -n 200", "mean and standard error"),),
    ),
    "status": Command(
        settings.StatusOptions,
        "cmtool.commands.status:run",
        "Show how a training run stands: its state, images, last save and last metrics",
        (
            ("cmtool status runs/train-ct/mine", "for people; with --json for programs"),
            ("cmtool status runs/train-ct/mine --state", "one word, for batch files"),
        ),
    ),
    "convert": Command(
        settings.ConvertOptions,
        "cmtool.commands.convert:run",
        "Convert a checkpoint to another format, precision or EMA; or pack images into one file",
        (
            ("cmtool convert edm-cifar10-32x32-uncond-vp.pkl edm.safetensors", "from NVIDIA's EDM"),
            ("cmtool convert student folder --to diffusers", "for diffusers"),
            ("cmtool convert runs/mine out.safetensors --ema-width 0.08", "a power-function EMA of another width"),
            ("cmtool convert photos photos.zip --size 64", "images, as EDM packs them; or .tar, or .npz"),
        ),
    ),
    "search-sigmas": Command(
        settings.SearchSigmasOptions,
        "cmtool.commands.search_sigmas:run",
        "Search the noise levels (sigmas) at which few-step sampling of a consistency model is best",
        (
            (
                "cmtool search-sigmas model.safetensors --ref digits --features small -n 1000",
                "two steps, into tuned.safetensors",
            ),
        ),
    ),
    "info": Command(
        settings.InfoOptions,
        "cmtool.commands.info:run",
        "Show plugins and their options, presets, a checkpoint's header, or what images hold",
        (
            ("cmtool info", "everything that has a name, with a sentence each"),
            ("cmtool info methods", "a group of it"),
            ("cmtool info ect", "formula, paper, options and an example"),
            ("cmtool info model.safetensors", "the header of a checkpoint"),
            ("cmtool info photos", "images: sizes, classes, duplicates, damaged files, a fingerprint"),
        ),
    ),
}
