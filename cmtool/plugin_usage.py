"""How plugins are used: the command and the key of each group, what fills their options, and an example for each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.options.plugin_option import PluginOption, default_text, parse_option

__all__ = ["USAGE", "Usage", "example", "groups", "groups_called", "groups_with", "shown_default"]

RUN = {key: f"--{key.replace('_', '-')}" for key in ("sigma_min", "sigma_max", "sigma_data")}
MASKS = {"mask": "--mask", "factor": "--factor", "blur": "--blur", "level": "--level", "margin": "--margin"}
ENDS = {"sigma_min": "the model's", "sigma_max": "the model's"}
NETWORK, AUGMENT = {"backbone": "--set backbone.OPTION"}, {"augment_dim": "--augment"}


@dataclass(frozen=True)
class Usage:
    """How a group is called in a heading, the command that names a plugin of it, and the key of its options.

    ``filled`` are options that take the value of a flag where they are not given; ``shown`` is a plugin with an option
    and a value, as a pattern of how one is set.
    Of a group of which a command takes ``several``, options are given with the list of names.
    ``defaults`` says in words what stands for options that come from the model.
    """

    title: str
    command: str
    key: str = ""
    filled: Mapping[str, str] = field(default_factory=dict)
    shown: tuple[str, str, str] | None = None
    several: bool = False
    defaults: Mapping[str, str] = field(default_factory=dict)

    def set(self, option: str, value: str, name: str = "NAME") -> str:
        """How an option of a plugin is given on the command line."""
        if self.several:
            return f"--set '{self.key}=[{{name: {name}, {option}: {value}}}]'"
        return f"--set {self.key}.{option}={value}"


USAGE = {
    "train_score": Usage(
        "Training of score models", "cmtool train-score --method {}", "method", RUN, ("edm", "P_mean", "-0.8")
    ),
    "train_ct": Usage("Consistency training", "cmtool train-ct --method {}", "method", RUN, ("ect", "q", "4")),
    "distill": Usage(
        "Distillation", "cmtool distill --teacher teacher.safetensors --method {}", "method", RUN, ("ecd", "q", "4")
    ),
    "backbones": Usage(
        "Backbones",
        "cmtool train-score --backbone {}",
        "backbone",
        AUGMENT,
        ("adm", "model_channels", "128"),
        defaults={"target_dim": "the method's"},
    ),
    "optimizers": Usage(
        "Optimizers", "cmtool train-ct --optimizer {}", "optimizer", shown=("adamw", "weight_decay", "0.02")
    ),
    "distances": Usage("Distances of two images", "cmtool train-ct --method ct --set method.metric={}"),
    "datasets": Usage("Data sets", "cmtool train-ct --data {}", "data", {}, ("digits", "size", "32")),
    "solvers": Usage("ODE solvers", "cmtool sample --solver {}", "solver", {}, ("heun", "churn", "8")),
    "samplers": Usage("Samplers", "cmtool sample --sampler {}", "sampler", {}, ("langevin", "rate", "0.1")),
    "schedules": Usage(
        "Sigma schedules", "cmtool sample --schedule {}", "schedule", {}, ("karras", "rho", "5"), defaults=ENDS
    ),
    "processes": Usage("Diffusion processes", "cmtool sample --process {}", "process", {}, ("vp", "beta_max", "15")),
    "operators": Usage("Editing tasks", "cmtool edit {} photo.png -o out.png", "operator", MASKS),
    "features": Usage(
        "Features",
        "cmtool fid samples --ref digits --features {}",
        "features",
        {"device": "--device"},
        ("inception", "mode", "legacy_tensorflow"),
    ),
    "metrics": Usage("Metrics", "cmtool fid samples --ref digits --metrics {}", "metrics", several=True),
    "loggers": Usage("Loggers", "cmtool train-ct --loggers {}", "loggers", several=True),
    "formats": Usage("Checkpoint formats", "cmtool convert FILE model.safetensors", "format", NETWORK),
    "assets": Usage("Published files", "cmtool fetch {}"),
}
METHODS = ("train_score", "train_ct", "distill")
# Where the command of the group would not do: other data, or a file that the task needs.
COMMANDS = {
    ("backbones", "mlp"): "cmtool train-score --data gaussians --backbone mlp",
    ("datasets", "gaussians"): "cmtool train-ct --data gaussians --backbone mlp",
    ("datasets", "ring"): "cmtool train-ct --data ring --backbone mlp",
    ("datasets", "checkerboard"): "cmtool train-ct --data checkerboard --backbone mlp",
    ("datasets", "folder"): "cmtool train-ct --data folder:./pictures",
    ("features", "points"): "cmtool fid points.npz --ref gaussians --features points",
    ("operators", "inpaint"): "cmtool edit inpaint photo.png --mask mask.png -o out.png",
    ("operators", "superres"): "cmtool edit superres small.png --factor 4 -o large.png",
    ("processes", "vp"): "cmtool sample --process vp --schedule time",
    ("distill", "pd"): "cmtool distill --teacher teacher.safetensors --data digits --method pd",
}
# Values worth showing, of options that many plugins have.
VALUES = {
    "q": "4",
    "churn": "8",
    "eta": "0.5",
    "model_channels": "128",
    "rho": "5",
    "beta_max": "15",
    "weight_decay": "0.02",
}


def groups() -> list[str]:
    """Every group, methods first."""
    return [group for group in USAGE if group in registry.GROUPS]


def groups_called(word: str) -> list[str]:
    """The groups that a word stands for: one by its name, or ``methods`` for all that train; none for another word."""
    key = word.replace("-", "_")
    return list(METHODS) if key == "methods" else [key] if key in registry.GROUPS else []


def groups_with(name: str) -> list[str]:
    """The groups that have a plugin of this name."""
    return [group for group in groups() if name in registry.names(group)]


def example(group: str, name: str, options: Sequence[PluginOption]) -> str:
    """A command that uses a plugin, with one of its options where one can be shown."""
    usage = USAGE[group]
    command = COMMANDS.get((group, name)) or usage.command.format(name)
    if not usage.key or group == "operators":
        return command
    free = [o for o in options if o.name not in usage.filled]
    shown = sorted(free, key=lambda o: o.name not in VALUES)  # those of the table first, the others in their order
    found = ((o, value) for o in shown for value in _values(o) if _fits(o, value))
    option, value = next(found, (None, ""))
    if option is None:
        return command
    command = command.split(f" --{usage.key}")[0] if usage.several else command
    return f"{command} {usage.set(option.name, value, name)}"


def _values(o: PluginOption) -> Iterable[str]:
    """Values other than the default, as users would write them."""
    if o.name in VALUES:
        yield VALUES[o.name]
    yield from (choice for choice in o.choices if choice != o.default)
    if isinstance(o.default, bool):
        yield default_text(not o.default)
    elif isinstance(o.default, int | float):
        yield from (default_text(x) for x in (2 * o.default, o.default / 2, o.default + 1) if x != o.default)


def _fits(o: PluginOption, value: str) -> bool:
    try:
        return parse_option(o, "", value) != o.default
    except UsageError:
        return False


def shown_default(group: str, o: PluginOption) -> str:
    """The default as users would write it, or the flag whose value it is."""
    usage = USAGE[group]
    return usage.filled.get(o.name) or usage.defaults.get(o.name) or default_text(o.default)
