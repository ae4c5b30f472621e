"""The facts in a docstring: closed examples of the convention."""

import pytest

from cmtool.options.plugin_facts import PluginFacts, parse_facts

WHOLE = """Easy consistency tuning: pairs of noise levels that come closer stage by stage.

    Formula: ``r(t) = t (1 - n(t) / q^stage)``,
        ``loss = w(t) d(f(x_t, t), f(x_r, r))``
    Paper: Geng et al. 2024, arXiv 2406.14548, section 3.
    Use: when a trained score model or little compute
    is at hand; the first to try.

    The weight is ``1 / (t - r)``.
    It is the authors'.

    Another paragraph.
    """


def test_every_block_is_found():
    assert parse_facts(WHOLE) == PluginFacts(
        summary="Easy consistency tuning: pairs of noise levels that come closer stage by stage.",
        formula="``r(t) = t (1 - n(t) / q^stage)``, ``loss = w(t) d(f(x_t, t), f(x_r, r))``",
        paper="Geng et al. 2024, arXiv 2406.14548, section 3.",
        use="when a trained score model or little compute is at hand; the first to try.",
        text="The weight is ``1 / (t - r)``. It is the authors'.\n\nAnother paragraph.",
    )


@pytest.mark.parametrize(
    ("docstring", "facts"),
    [
        (None, PluginFacts()),
        ("", PluginFacts()),
        ("One sentence.", PluginFacts("One sentence.")),
        ("Two lines\n    of one sentence.", PluginFacts("Two lines of one sentence.")),
        ("One. And more.\n", PluginFacts("One.", text="And more.")),
        ("Ho et al. 2020 have it, e.g. Here.", PluginFacts("Ho et al. 2020 have it, e.g. Here.")),
        ("One.\nUse: always.", PluginFacts("One.", use="always.")),
        (
            "One.\n\nFirst.\n\nUse:\n    always,\n    and again.\n\nLast.",
            PluginFacts("One.", "", "", "always, and again.", "First.\n\nLast."),
        ),
        ("One.\n\nPaper: a.\n\nPaper: b.", PluginFacts("One.", paper="a. b.")),
        ("One.\n\nUses: nothing.", PluginFacts("One.", text="Uses: nothing.")),
        ("Use: always.", PluginFacts("", use="always.")),
    ],
)
def test_what_is_left_out_is_empty(docstring, facts):
    assert parse_facts(docstring) == facts
