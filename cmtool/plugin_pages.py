"""What ``cmtool info`` says of plugins: a list of each group, and a page of one with its facts, options and an example.

Lists are read from source text and import nothing; a page imports the plugin, whose options are then known for certain.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import Any

from cmtool.errors import UsageError
from cmtool.options import registry
from cmtool.options.plugin_facts import PluginFacts, parse_facts
from cmtool.options.plugin_option import PluginOption, default_text, options_of, parse_option
from cmtool.options.plugin_source import read_source

__all__ = [
    "USAGE",
    "ListedPlugin",
    "Plugin",
    "Usage",
    "describe",
    "example",
    "groups",
    "groups_called",
    "groups_with",
    "list_plugins",
    "list_text",
    "option_help",
    "page_text",
    "shown_default",
]

RUN = {key: f"--{key.replace('_', '-')}" for key in ("sigma_min", "sigma_max", "sigma_data")}
MASKS = {"mask": "--mask", "factor": "--factor", "blur": "--blur", "level": "--level", "margin": "--margin"}
ENDS = {"sigma_min": "the model's", "sigma_max": "the model's"}
NETWORK, AUGMENT = {"backbone": "--set backbone.OPTION"}, {"augment": "--augment"}


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
        "Backbones", "cmtool train-score --backbone {}", "backbone", AUGMENT, ("adm", "model_channels", "128")
    ),
    "optimizers": Usage("Optimizers", "cmtool train-ct --set optimizer={}", "optimizer", {"lr": "--lr"}),
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
    "formats": Usage("Checkpoint formats", "cmtool convert FILE model.safetensors", "format", NETWORK),
    "assets": Usage("Published files", "cmtool fetch {}"),
}
HARD = "\N{NO-BREAK SPACE}"
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
VALUES = {"q": "4", "churn": "8", "eta": "0.5", "model_channels": "128", "rho": "5", "beta_max": "15"}


@dataclass(frozen=True)
class ListedPlugin:
    """A plugin as far as it is known without importing it."""

    group: str
    name: str
    distribution: str
    version: str
    target: str
    summary: str


@dataclass(frozen=True)
class Plugin:
    """A plugin with all that it says of itself."""

    listed: ListedPlugin
    facts: PluginFacts
    options: tuple[PluginOption, ...]

    def document(self) -> dict[str, Any]:
        """Plain values for JSON."""
        facts, options = self.facts, [_option_document(self.listed.group, o) for o in self.options]
        about = vars(self.listed) | {"summary": facts.summary, "formula": facts.formula, "paper": facts.paper}
        return about | {"use": facts.use, "text": facts.text, "options": options, "example": example(self)}


def _option_document(group: str, o: PluginOption) -> dict[str, Any]:
    about = {"name": o.name, "type": o.type, "required": o.required, "default": None if o.required else o.default}
    about |= {"help": o.help, "limits": o.limits, "choices": list(o.choices)}
    return about | {"flag": USAGE[group].filled.get(o.name)}


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


def list_plugins(group: str) -> list[ListedPlugin]:
    """Every plugin of a group with its summary; a name that two packages claim is listed twice."""
    entries = registry.providers(group).items()
    return [_listed(group, entry) for _, claims in entries for entry in claims]


def _listed(group: str, entry: EntryPoint) -> ListedPlugin:
    owner, version = (entry.dist.name, entry.dist.version) if entry.dist else ("?", "?")
    source = read_source(entry.value)
    summary = parse_facts(source.docstring).summary if source else ""
    return ListedPlugin(group, entry.name, owner, version, entry.value, summary)


def describe(group: str, name: str) -> Plugin:
    """A plugin with its facts and options; it is imported. UsageError where there is none, or where it is broken."""
    factory = registry.factory(group, name)
    listed = _listed(group, registry.providers(group)[name][0])
    source = read_source(listed.target)
    if not callable(factory):  # a constant, such as a published file
        return Plugin(listed, parse_facts(source and source.docstring), ())
    docstring = source.docstring if source else factory.__doc__
    return Plugin(listed, parse_facts(docstring), tuple(options_of(factory).values()))


def example(plugin: Plugin) -> str:
    """A command that uses the plugin, with one of its options where one can be shown."""
    group, name = plugin.listed.group, plugin.listed.name
    usage = USAGE[group]
    command = COMMANDS.get((group, name)) or usage.command.format(name)
    if not usage.key or group == "operators":
        return command
    free = [o for o in plugin.options if o.name not in usage.filled]
    shown = sorted(free, key=lambda o: o.name not in VALUES)  # those of the table first, the others in their order
    found = ((o, value) for o in shown for value in _values(o) if _fits(o, value))
    option, value = next(found, (None, ""))
    if option is None:
        return command
    command = command.split(" --metrics")[0] if usage.several else command
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


def list_text(group: str, plugins: Sequence[ListedPlugin], width: int) -> str:
    """A heading, and a line or two for each plugin; the package of those that did not come with cmtool."""
    column = max((len(p.name) for p in plugins), default=0) + 4
    rows = [_hang(f"  {p.name:<{column - 2}}", _summary(p), width) for p in plugins]
    return "\n".join([f"{USAGE[group].title} ({group})", *rows])


def _summary(p: ListedPlugin) -> str:
    """The summary, or the place of a plugin that has none."""
    owner = "" if p.distribution == "cmtool" else f"({p.distribution} {p.version})"
    return " ".join(filter(None, [_plain(p.summary) or p.target, owner]))


def page_text(plugin: Plugin, width: int) -> str:
    """The page of a plugin in ``width`` columns."""
    listed, facts = plugin.listed, plugin.facts
    blocks = [f"{listed.name}: {registry.GROUPS[listed.group]} of {listed.distribution} {listed.version}"]
    blocks += [_hang("", _plain(facts.summary), width)] if facts.summary else []
    facts_said = [("Formula:", facts.formula), ("Paper:", facts.paper), ("Use:", facts.use)]
    lines = [_hang(f"{heading:<9}", _plain(text), width) for heading, text in facts_said if text]
    blocks += ["\n".join(lines)] if lines else []
    blocks += [_hang("", _plain(text), width) for text in facts.text.split("\n\n") if text]
    if plugin.options:
        blocks.append(_options_text(plugin, width))
    return "\n\n".join([*blocks, f"Example:\n  {example(plugin)}"])


def _options_text(plugin: Plugin, width: int) -> str:
    group = plugin.listed.group
    rows = [("option", "type", "default", "")]
    rows += [(o.name, o.type, shown_default(group, o), option_help(o)) for o in plugin.options]
    name, kind, default = (max(len(row[i]) for row in rows) for i in range(3))
    lines = [_hang(f"  {a:<{name}}  {b:<{kind}}  {c:<{default}}  ", _plain(d), width) for a, b, c, d in rows]
    return "\n".join([f"Options, set with {USAGE[group].set('OPTION', 'VALUE', plugin.listed.name)}:", *lines])


def option_help(o: PluginOption) -> str:
    """The help of an option, and what it may be."""
    limits = f"one of {o.limits}" if o.choices else o.limits
    return "; ".join(filter(None, [o.help, limits]))


def shown_default(group: str, o: PluginOption) -> str:
    """The default as users would write it, or the flag whose value it is."""
    usage = USAGE[group]
    return usage.filled.get(o.name) or usage.defaults.get(o.name) or default_text(o.default)


def _plain(text: str) -> str:
    """Without back-ticks; short code is held together by spaces that no line breaks at."""
    parts = text.split("``")
    return "".join(part.replace(" ", HARD) if i % 2 and len(part) < 40 else part for i, part in enumerate(parts))


def _hang(left: str, right: str, width: int) -> str:
    """``right`` behind ``left``, its further lines below its first."""
    wrapper = textwrap.TextWrapper(
        max(width, len(left) + 20),
        initial_indent=left,
        subsequent_indent=" " * len(left),
        break_on_hyphens=False,
        break_long_words=False,
    )
    return (wrapper.fill(right).replace(HARD, " ") or left).rstrip()
