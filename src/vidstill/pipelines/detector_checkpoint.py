"""A trained detector, with what its file says of itself."""

from dataclasses import dataclass

from vidstill.checkpoints.io import read_weights
from vidstill.checkpoints.load import load_exactly
from vidstill.data.ava.label_map import Actions
from vidstill.data.ava.samples import BoxViewsConfig
from vidstill.recipes.recipe import Detect
from vidstill.tasks.detection import Detector, DetectorConfig
from vidstill.tasks.metrics.ava_map import Matching
from vidstill.utils.config_io import from_plain
from vidstill.utils.types import InputError

KIND = "detector"
"""What a file of weights says that it is."""


@dataclass(frozen=True)
class Loaded:
    """
    Args:
        times_person_score: an action's score is multiplied by that of whoever found the box.
        matching: the rule that the test of its training was scored by.
        trained_on: rows and columns of its training's clips.
    """

    model: Detector
    actions: Actions
    views: BoxViewsConfig
    times_person_score: bool
    matching: Matching
    trained_on: tuple[int, int]
    source: str


def load_detector(source: str) -> Loaded:
    """The detector of a run's folder or of a file of weights.

    Raises:
        InputError: it is none.
    """
    weights = read_weights(source)
    about = weights.about
    if about.get("kind") != KIND:
        raise InputError(
            f"{source} is no detector of actions but {about.get('kind', 'a foreign file')}; train one from it first: "
            f"vidstill detect train RECIPE --init {source} --data DATA"
        )
    wanted = ("detector", "actions", "evaluated", "recipe")
    if lacking := [word for word in wanted if word not in about]:
        raise InputError(f"{source} does not say what its {lacking[0]} are; it is damaged, fetch or write it again")
    config = from_plain(DetectorConfig, about["detector"])
    actions = Actions({int(number): str(name) for number, name in about["actions"]}, frozenset(about["evaluated"]))
    if config.actions != len(actions):
        raise InputError(
            f"{source} scores {config.actions} actions and names {len(actions)}; it is damaged, fetch or write it again"
        )
    model = config.build()
    load_exactly(model, weights.tensors, source)
    recipe = from_plain(Detect, about["recipe"])
    return Loaded(model, actions, recipe.views, recipe.times_person_score, recipe.matching, recipe.clips.size, source)
