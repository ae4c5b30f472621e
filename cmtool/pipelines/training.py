"""Training without files: ``cmtool.train``, and the steps of ``train-score``, ``distill`` and ``train-ct``."""

import copy
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from cmtool.core.denoiser import Denoiser
from cmtool.errors import UsageError, unknown_name
from cmtool.files.header import Header
from cmtool.files.model_format import LoadedModel
from cmtool.objectives.objective import Batch
from cmtool.options import registry
from cmtool.options.call import options_of_call
from cmtool.options.lr_schedule import learning_rate
from cmtool.pipelines.distributed import World, find_world, local_device, ranks_of, start_group
from cmtool.pipelines.training_job import TrainingJob, build_training
from cmtool.settings import DistillOptions, TrainCtOptions, TrainOptions, TrainScoreOptions
from cmtool.training.devices import choose_device, choose_parallel, micro_batch_size, precision, precision_name
from cmtool.training.loop import LoopConfig, Report, first_rows
from cmtool.training.loop import train as train_loop
from cmtool.training.read_ahead import ReadAhead
from cmtool.training.sharding import gather_model, shard_state

__all__ = ["TrainingReport", "current_header", "is_sharded", "share_weights", "train", "training_steps"]

GROUPS: Mapping[str, type[TrainOptions]] = {
    "train_score": TrainScoreOptions,
    "distill": DistillOptions,
    "train_ct": TrainCtOptions,
}


@dataclass(frozen=True)
class TrainingReport:
    """How training stands after a step.

    ``images`` have been seen, ``loss`` and ``gradient`` (its norm) are those of the last batch, ``lr`` is the learning
    rate; where the gradient was not finite the step was left out and ``finite`` is False. ``loss`` is a tensor, so that
    nobody waits for the device who does not look. ``remarks`` are for people, as when memory ran out and the
    micro-batch became smaller.
    """

    images: int
    loss: torch.Tensor
    gradient: torch.Tensor
    lr: float
    finite: bool
    job: TrainingJob
    remarks: tuple[str, ...] = ()

    @property
    def model(self) -> LoadedModel[Denoiser]:
        """The network as it is now; it changes with the next step. A copy where it is sharded: all ranks ask for it."""
        return self._as_loaded(self.job.state.model)

    @property
    def ema(self) -> LoadedModel[Denoiser]:
        """The first average of the weights (EMA), the model that the commands keep; it changes with the next step."""
        return self._as_loaded(self.job.state.average.model)

    def _as_loaded(self, model: nn.Module) -> LoadedModel[Denoiser]:
        sharding = self.job.state.sharding
        model = (gather_model(model, sharding) if sharding else model) or model
        return LoadedModel(cast(Denoiser, model), current_header(self.job), Path(self.job.header.method))


def current_header(job: TrainingJob) -> Header:
    """What a checkpoint says now: a method may change its sampling noise levels during training."""
    return replace(job.header, images=job.state.images, sigmas=job.state.objective.sampling_sigmas)


def is_sharded(options: TrainOptions, world: World) -> bool:
    """Whether the ranks share the weights; one process has them whole, whatever the options say."""
    return options.parallel == "fsdp" and world.size > 1


def share_weights(options: TrainOptions, job: TrainingJob, device: torch.device) -> None:
    """Shard a new job, which all ranks have built on the processor, over their devices."""
    start_group(find_world(), device)
    shard_state(job.state, device, torch.bfloat16 if precision_name(options.precision, device) == "bf16" else None)


def training_steps(
    options: TrainOptions,
    job: TrainingJob,
    batches: Iterator[Batch] | None = None,
    poll: Callable[[], Sequence[int]] = tuple,
) -> Generator[Report, None, None]:
    """The steps of a run from where its state stands; a report after each.

    Of several ranks that a launcher has started each makes its part; all of them must be here. ``poll`` is that of
    ``LoopConfig``. ``batches`` are those of the job, unless others are given.
    """
    device, state = choose_device(local_device(options.device)), job.state
    config = LoopConfig(
        seed=options.seed,
        clip=options.grad_clip,
        micro=options.micro_batch or micro_batch_size(options.batch, job.header.shape, device),
        threads=torch.get_num_threads(),
        autocast=precision(options.precision, device),
        ranks=ranks_of(find_world(), device),
        parallel=choose_parallel(options.parallel, device),
        poll=poll,
    )

    def rate(n: int) -> float:
        return learning_rate(options.lr, n, options.images, options.warmup, options.lr_schedule, options.hold)

    rows = first_rows(state, config, options.batch)
    with nullcontext(batches) if batches else ReadAhead(job.batches, state.images, rows) as feed:
        yield from train_loop(state, feed, options.images, rate, config)


def train(
    method: str | Mapping[str, Any],
    data: Any,
    *,
    images: int | None = None,
    teacher: LoadedModel[Denoiser] | str | Path | None = None,
    init: LoadedModel[Denoiser] | str | Path | None = None,
    backbone: str | Mapping[str, Any] | None = None,
    sigma_data: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    conditional: bool | None = None,
    label_dropout: float | None = None,
    flip: bool | None = None,
    augment: float | None = None,
    batch: int | None = None,
    optimizer: str | Mapping[str, Any] | None = None,
    lr: float | None = None,
    warmup: int | None = None,
    lr_schedule: str | None = None,
    hold: int | None = None,
    ema: int | float | str | None = None,
    grad_clip: float | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guidance_model: str | Path | None = None,
    seed: int | None = None,
    micro_batch: int | None = None,
    parallel: str | None = None,
    cache: int | None = None,
    precision: str | None = None,
    device: str | None = None,
) -> Iterator[TrainingReport]:
    """Train a score model, distil one or train a consistency model; a report after every step.

        for report in cmtool.train("ect", "digits", images=100_000):
            ...
        images = next(cmtool.sample(report.ema, n=16)).images

    ``method`` is the name of a method of ``train-score``, ``distill`` or ``train-ct``, or ``{"name": "ect", "q": 4}``;
    ``data`` that of a data set, such as ``"digits[0::2]"`` or a folder, or a data set itself (the contract
    ``cmtool.datasets``). ``teacher`` and ``init`` are models, files, run directories or names of bundled models. The
    other arguments are the options of that command. Nothing is written. The weights are those
    of the command with the same options, bit for bit. Where a launcher such as torchrun has started several processes
    of the program, all of them train one model together. What is wrong is raised at once: UsageError, MissingInput,
    BadFile. A step whose gradient is not finite is left out; whoever iterates decides how often that may happen.
    """
    arguments = {key: value for key, value in dict(locals()).items() if value is not None and key != "data"}
    cls = _command_of(method)
    for key in arguments.keys() & cls.refused.keys():
        raise UsageError(*cls.refused[key])
    parent = next((model for model in (teacher, init) if isinstance(model, LoadedModel)), None)
    arguments |= {key: str(parent.path) for key in ("teacher", "init") if parent and key in arguments}
    named = isinstance(data, str | Mapping)
    options = options_of_call(cls, {**arguments, **({"data": data} if named else {})})
    parent = parent and replace(parent, model=copy.deepcopy(parent.model).cpu())  # the caller's may go on to change
    where, sharded = choose_device(local_device(options.device)), is_sharded(options, find_world())
    job = build_training(options, torch.device("cpu") if sharded else where, None if named else data, parent)
    if sharded:
        share_weights(options, job, where)
    if not named:
        facts = {**job.header.data, "name": type(data).__name__}
        own = {key: value for key, value in job.header.options.items() if key != "data"}
        job.header = replace(job.header, data=facts, options=own)
    return _reports(options, job)


def _reports(options: TrainOptions, job: TrainingJob) -> Iterator[TrainingReport]:
    with closing(training_steps(options, job)) as steps:
        for step in steps:
            remarks = tuple(map(str, step.remarks))
            yield TrainingReport(step.images, step.loss, step.gradient, step.rate, step.finite, job, remarks)


def _command_of(method: str | Mapping[str, Any]) -> type[TrainOptions]:
    """The options of the command that has the method; UsageError where none or several have."""
    name = method if isinstance(method, str) else method.get("name", "")
    known = {group: registry.names(group) for group in GROUPS}
    found = [group for group, names in known.items() if name in names]
    if not found:
        raise unknown_name("training method", name, {each for names in known.values() for each in names})
    if len(found) > 1:
        raise UsageError(f"'{name}' is a method of several commands: {', '.join(found)}", "rename one of them")
    return GROUPS[found[0]]
