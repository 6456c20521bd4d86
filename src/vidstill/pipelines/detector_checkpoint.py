"""A trained detector, with what its file says of itself."""

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
"""What a file of weights says that it is."""


@dataclass(frozen=True)
class LoadedDetector:
    """
    Args:
        use_person_scores: an action's score is multiplied by that of whoever found the box.
        matching: the rule that the test of its training was scored by.
        train_size: rows and columns of its training's clips.
    """

    model: Detector
    actions: LabelMap
    views: BoxViewsConfig
    use_person_scores: bool
    matching: MatchingOrder
    train_size: tuple[int, int]
    source: str


def load_detector(source: str) -> LoadedDetector:
    """The detector of a run's folder or of a file of weights.

    Raises:
        InputError: it is none.
    """
    weights = read_checkpoint(source)
    about = weights.metadata
    if about.get("kind") != DETECTOR_KIND:
        raise InputError(
            f"{source} is no detector of actions but {about.get('kind', 'a foreign file')}; train one from it first: "
            f"vidstill detect train RECIPE --init {source} --data DATA"
        )
    wanted = ("detector", "actions", "evaluated", "recipe")
    if lacking := [word for word in wanted if word not in about]:
        raise InputError(f"{source} does not say what its {lacking[0]} are; it is damaged, fetch or write it again")
    config = from_dict(DetectorConfig, about["detector"])
    actions = LabelMap({int(number): str(name) for number, name in about["actions"]}, frozenset(about["evaluated"]))
    if config.num_actions != len(actions):
        raise InputError(
            f"{source} scores {config.num_actions} actions and names {len(actions)}; it is damaged, fetch or write it again"
        )
    model = build_from_state(config.build, config.encoder, weights.tensors, source)
    recipe = from_dict(DetectionRecipe, about["recipe"])
    return LoadedDetector(
        model, actions, recipe.views, recipe.use_person_scores, recipe.matching_rule, recipe.clips.size, source
    )
