"""What is to be seen in a made clip with boxes: figures, the balls that they have, and what each of them does when."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

PERSON_ACTIONS = (  # as in AVA: movements, what is done with things, what is done with others
    *("stand still", "move left", "move right", "jump"),
    *("carry (an object)", "throw (an object)", "catch (an object)"),
    *("follow (a person)", "approach (a person)", "leave (a person)", "circle (a person)", "touch (a person)"),
)
"""Their numbers in files are 1 to 12."""

FIRST_INTERACTION = 7
"""The place of the first of the ACTIONS that needs two who are to be seen."""

WORLD_MARGIN = 0.22
"""How far the world goes on to the left and to the right of the frame, in shorter sides: a figure there is unseen."""

SHOULDER_OFFSET = (0.13, 0.64)
"""How far aside of a figure's middle and above its feet, in its heights."""

ARM_LENGTH = 0.2
"""Its length, in heights of a figure."""

PerFrame = Float[np.ndarray, "t"]


@dataclass(frozen=True, kw_only=True)
class StickFigure:
    """A person in each frame. Lengths are in shorter sides of the frame, from its upper left corner.

    Args:
        index: among the clip's figures.
        height: from feet to head.
        x, y: of the place between its feet.
        depth: the larger of two is in front.
        arm_angles: how far the left and the right one (as they are seen) are raised from the horizontal, in radians.
        actions: which of the ACTIONS.
        partner: the number of the one with whom it does what is done with others.
    """

    index: int
    height: float
    x: PerFrame
    y: PerFrame
    depth: PerFrame
    arm_angles: Float[np.ndarray, "t 2"]
    actions: Bool[np.ndarray, "t a"]
    partner: int | None = None

    def locate_hand(self, side: int) -> tuple[PerFrame, PerFrame]:
        """Where the left one (0) or the right one (1) is."""
        aside, above = (
            SHOULDER_OFFSET[0] + ARM_LENGTH * np.cos(self.arm_angles[:, side]),
            SHOULDER_OFFSET[1] + ARM_LENGTH * np.sin(self.arm_angles[:, side]),
        )
        return self.x + (2 * side - 1) * aside * self.height, self.y - above * self.height


@dataclass(frozen=True)
class Ball:
    """Its middle and depth in each frame, NaN where there is none."""

    x: PerFrame
    y: PerFrame
    depth: PerFrame


@dataclass(frozen=True, kw_only=True)
class Scene:
    figures: tuple[StickFigure, ...]
    balls: tuple[Ball, ...]
