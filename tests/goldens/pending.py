"""Kinds of recorded cases whose method is still to come: expected to fail, each with the issue that brings it."""

IMAGES = "Real images, and the newest methods"
EDITING = "Exact editing"

PENDING = {
    "alphaflow_loss": IMAGES,
    "alphaflow_schedule": IMAGES,
    "azula_posterior": EDITING,
    "closed_flowmap": IMAGES,
    "closed_posterior": EDITING,
    "ddnm_sampler": EDITING,
    "ddrm_sampler": EDITING,
    "facm_loss": IMAGES,
    "fastgen_meanflow": IMAGES,
    "flowmap_loss": IMAGES,
    "gc_step": IMAGES,
    "imf_loss": IMAGES,
    "imm_sampler": IMAGES,
    "meanflow_guided": IMAGES,
    "meanflow_loss": IMAGES,
    "pnpcm_sampler": EDITING,
    "shortcut_targets": IMAGES,
    "sid_losses": IMAGES,
    "vct_loss": IMAGES,
}
