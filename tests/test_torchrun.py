"""``torchrun ... -m cmtool COMMAND ...``: torchrun's own parser lets every flag of ours through."""

import pytest
from torch.distributed.run import get_args_parser

from cmtool.cli import COMMANDS
from cmtool.help_pages import BATCH, SHARED
from cmtool.options.fields import option_fields


def flags(name):
    """Every flag of a command with a value behind it, as a user could type it."""
    declared = [d for d in option_fields(COMMANDS[name].options).values() if not d.positional and not d.yaml_only]
    shared = [word for left, _ in (*SHARED, *BATCH) for word in left.replace(",", "").split() if word.startswith("-")]
    negative = [f"--no-{d.long[2:]}" for d in declared if d.switch]
    return [*shared, *negative, *(flag for d in declared for flag in (d.long, d.flag) if flag)]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_flag_of_ours_is_an_ambiguous_beginning_of_one_of_torchruns(name):
    ours = [name, *(word for flag in flags(name) for word in (flag, "x"))]
    given = get_args_parser().parse_args(["--nproc-per-node", "2", "-m", "cmtool", *ours])
    assert (given.training_script, given.training_script_args) == ("cmtool", ours)
    assert len(ours) > 10


def test_the_check_can_fail():
    with pytest.raises(SystemExit):
        get_args_parser().parse_args(["-m", "cmtool", "train-ct", "--run", "x"])
