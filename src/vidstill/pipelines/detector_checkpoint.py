"""A trained detector of actions, read from a run directory or a checkpoint."""

from dataclasses import dataclass

from vidstill.checkpoints.io import read_checkpoint
from vidstill.checkpoints.load import build_from_state
from vidstill.data.ava.label_map import LabelMap
from vidstill.data.ava.samples import BoxViewsConfig
from vidstill.recipes.recipe import DetectionRecipe
from vidstill.tasks.detection import Detector, DetectorConfig
from vidstill.tasks.metrics.ava_map import MatchingOrder
from vidstill.utils.config_io import from_dict
from vidstill.utils.types import InputError

DETECTOR_KIND = "detector"
"""The `kind` in the metadata of a detector's checkpoint."""


@dataclass(frozen=True)
class LoadedDetector:
    """A detector with what its checkpoint states.

    Args:
        views: Of its test.
        use_person_scores: An action's score is multiplied by the score of the person's box.
        matching: The rule that its test was scored by.
        train_size: Rows and columns of the training clips.
    """

    model: Detector
    actions: LabelMap
    views: BoxViewsConfig
    use_person_scores: bool
    matching: MatchingOrder
    train_size: tuple[int, int]
    source: str


def load_detector(source: str) -> LoadedDetector:
    """Load the detector of a run directory or of a checkpoint.

    Raises:
        InputError: It is no detector.
    """
    checkpoint = read_checkpoint(source)
    metadata = checkpoint.metadata
    if metadata.get("kind") != DETECTOR_KIND:
        raise InputError(
            f"{source} is no detector of actions but {metadata.get('kind', 'a foreign file')}; train one from it "
            "first: "
            f"vidstill detect train RECIPE --init {source} --data DATA"
        )
    if missing := [key for key in ("detector", "actions", "evaluated", "recipe") if key not in metadata]:
        raise InputError(f"{source} does not state its {missing[0]}; it is damaged, download or export it again")
    config = from_dict(DetectorConfig, metadata["detector"])
    actions = LabelMap(
        {int(number): str(name) for number, name in metadata["actions"]}, frozenset(metadata["evaluated"])
    )
    if config.num_actions != len(actions):
        raise InputError(
            f"{source} scores {config.num_actions} actions and names {len(actions)}; it is damaged, download or export "
            "it again"
        )
    model = build_from_state(config.build, config.encoder, checkpoint.tensors, source)
    recipe = from_dict(DetectionRecipe, metadata["recipe"])
    return LoadedDetector(
        model, actions, recipe.views, recipe.use_person_scores, recipe.matching_rule, recipe.clips.size, source
    )
