"""The public checkpoint that `auto` proposes; it is never fetched without being requested."""

from vidstill.checkpoints.licences import allows_commercial
from vidstill.checkpoints.model_zoo import PublishedCheckpoint, list_published_checkpoints
from vidstill.models.vit import BASE, SMALL
from vidstill.recipes.auto import defaults
from vidstill.recipes.auto.dataset_stats import DatasetStats, Hardware
from vidstill.utils.flops import compute_model_cost

_NUM_FRAMES, _SIZE = 16, (224, 224)  # of the clips that the family's checkpoints were trained on
_ENCODERS = {"S": SMALL, "B": BASE}


def propose_public_checkpoint(stats: DatasetStats, hardware: Hardware) -> str:
    """Return a message on a small public checkpoint of free licence and the option that takes it; "": none would fit.

    Args:
        stats: Of the training set.
        hardware: Cores or GPUs.
    """
    if stats.is_images or (each := _find_smallest()) is None:
        return ""
    gflops = compute_model_cost(_ENCODERS[each.size], num_frames=_NUM_FRAMES, size=_SIZE).gflops
    kind = hardware.device_kind
    seconds = 3 * stats.num_clips * gflops / (defaults.GMACS_PER_SECOND[kind] * hardware.count)
    minutes = defaults.MIN_EPOCHS * seconds / 60
    if kind == "cpu" and stats.num_clips < defaults.MANY_CLIPS and minutes > defaults.TRAINING_MINUTES[kind]:
        return ""
    parameters = each.num_parameters or 0
    duration = f"{minutes / 60:.0f} h" if minutes >= 120 else f"{max(1, minutes):.0f} min"
    return (
        f"a public checkpoint to start from: {each.name} ({each.licence}, {parameters / 1e6:.0f} M parameters, about "
        f"{4 * parameters / 1e6:.0f} MB to download), with --init hf://{each.hub_repo}/{each.hub_file}; about "
        f"{duration} for {defaults.MIN_EPOCHS} epochs with {hardware}. Nothing is downloaded without this option"
    )


def _find_smallest() -> PublishedCheckpoint | None:
    """Return the smallest encoder of clips on the Hub whose licence allows any use."""
    fitting = [
        each
        for each in list_published_checkpoints()
        if each.family.startswith("VideoMAE") and each.size in _ENCODERS and each.hub_repo and each.hub_file
        if each.num_parameters and allows_commercial(each.licence)
    ]
    return min(fitting, key=lambda each: each.num_parameters or 0, default=None)
