"""Who does what in a made clip with boxes: figures alone and in twos, each other things every two seconds."""

import math

import numpy as np
from jaxtyping import Bool

from vidstill.synthetic.scene import (
    ARM_LENGTH,
    PERSON_ACTIONS,
    SHOULDER_OFFSET,
    WORLD_MARGIN,
    Ball,
    PerFrame,
    Scene,
    StickFigure,
)
from vidstill.utils.rng import numpy_rng

_GROUP_SIZES = ((2,), (2, 1), (2, 1), (2, 2))  # two together, or one alone
_HEIGHT_RANGE = (0.36, 0.44)
_SPEED_RANGE = (0.2, 0.34)  # shorter sides in a second
_SEGMENT_SECONDS = 2.0  # seconds for which a figure goes on doing the same
_LEAD_SECONDS = 0.5  # of the first such part are over when a clip begins, so that no whole second is near a change
_MAX_DISTANCE = 1.0  # that two who have to do with each other are apart
_MAX_CIRCLE_DISTANCE = 0.45  # the furthest at which one circles the other
_CARRY_PROB = 0.25  # how probable it is, for a part

_TimeMask = Bool[np.ndarray, "t"]


def generate_scene(seed: int, *, seconds: int, fps: int, size: tuple[int, int]) -> Scene:
    """What happens in the clip of this seed; size in rows and columns.

    From left to right the world is a circle, somewhat longer than the frame is wide, on which everybody starts
    anywhere, all places being alike. So at every moment a figure's place is uniform, whichever way it moves, and no
    single frame tells left from right or either from standing; a hop's mean height is that of who stands.
    """
    chance = numpy_rng(seed, "scene")
    stage = _Stage(chance, seconds=seconds, fps=fps, size=size)
    groups = _GROUP_SIZES[chance.integers(len(_GROUP_SIZES))]
    lanes = (chance.permutation(len(groups)) + chance.random(len(groups))) / len(groups)
    highest, lowest = stage.floor_range
    for persons, lane in zip(groups, lanes, strict=True):
        floor = highest + lane * (lowest - highest)
        if persons == 1:
            _simulate_single(stage, _Actor(stage, floor))
        else:
            _ActorPair(stage, _Actor(stage, floor), _Actor(stage, floor)).simulate()
    return Scene(figures=tuple(stage.figures), balls=tuple(stage.balls))


class _Stage:
    """The frames of a clip, and who has been on it so far."""

    def __init__(self, chance: np.random.Generator, *, seconds: int, fps: int, size: tuple[int, int]):
        self.rng = chance
        self.time = np.arange(seconds * fps) / fps
        part = np.floor((self.time + _LEAD_SECONDS) / _SEGMENT_SECONDS)
        self.segment_time = self.time + _LEAD_SECONDS - part * _SEGMENT_SECONDS
        self.segments = [part == number for number in range(int(part[-1]) + 1)]
        self.world_width = size[1] / min(size) + 2 * WORLD_MARGIN
        self.floor_range = (_HEIGHT_RANGE[1] + 0.04, size[0] / min(size) - 0.06)
        self.figures: list[StickFigure] = []
        self.balls: list[Ball] = []

    def to_frame_x(self, x: PerFrame) -> PerFrame:
        """From a place on the world's circle to one in the frame."""
        return x % self.world_width - WORLD_MARGIN

    def add_ball(self, x: PerFrame, y: PerFrame, depth: PerFrame, *, where: _TimeMask) -> None:
        """A ball, if it is anywhere."""
        if where.any():
            self.balls.append(Ball(*(np.where(where, number, np.nan) for number in (x, y, depth))))


class _Actor:
    """A figure while it does one part after another."""

    def __init__(self, stage: _Stage, floor: float):
        chance, frames = stage.rng, len(stage.time)
        self.stage = stage
        self.height = chance.uniform(*_HEIGHT_RANGE)
        self.reach = (SHOULDER_OFFSET[0] + ARM_LENGTH) * self.height
        self.position = chance.uniform(0, stage.world_width)  # when a part begins
        self.base_floor = floor
        self.x, self.floor, self.jump_height = np.zeros(frames), np.full(frames, floor), np.zeros(frames)
        self.arm_angles = np.tile(chance.uniform(-1.2, -0.3, 2), (frames, 1))
        self.actions = np.zeros((frames, len(PERSON_ACTIONS)), bool)
        self.carrying_hand = int(chance.integers(2))  # of the hand that carries
        self.carry_mask = np.zeros(frames, bool)

    def mark_action(self, now: _TimeMask, action: str) -> None:
        self.actions[now, PERSON_ACTIONS.index(action)] = True

    def move(self, now: _TimeMask, speed: float) -> None:
        self.x[now] = self.position + speed * self.stage.segment_time[now]
        self.position += speed * _SEGMENT_SECONDS
        self.mark_action(now, "move right" if speed > 0 else "move left")

    def stand_or_jump(self, now: _TimeMask, *, jumps: float = 0) -> None:
        """Stands or, as probably as that, jumps."""
        self.x[now] = self.position
        high, often, phase, choice = self.stage.rng.uniform((0.12, 1.2, 0, 0), (0.17, 1.6, 1, 1))
        if choice < jumps:
            hop = (phase + often * self.stage.time[now]) % 1
            self.jump_height[now] = high * (4 * hop * (1 - hop) - 2 / 3)  # a throw's parabola
        self.mark_action(now, "jump" if choice < jumps else "stand still")

    def maybe_carry(self, now: _TimeMask) -> None:
        if self.stage.rng.random() < _CARRY_PROB:
            self.carry_mask |= now
            self.mark_action(now, "carry (an object)")

    def add_figure(self, other: int | None = None) -> StickFigure:
        figure = StickFigure(
            index=len(self.stage.figures),
            height=self.height,
            x=self.stage.to_frame_x(self.x),
            y=self.floor - self.jump_height,
            depth=self.floor,
            arm_angles=self.arm_angles,
            actions=self.actions,
            partner=other,
        )
        self.stage.figures.append(figure)
        self.stage.add_ball(*figure.locate_hand(self.carrying_hand), figure.depth + 1e-3, where=self.carry_mask)
        return figure


def _simulate_single(stage: _Stage, actor: _Actor) -> None:
    for now in stage.segments:
        if stage.rng.random() < 0.55:
            actor.move(now, stage.rng.choice([-1, 1]) * stage.rng.uniform(*_SPEED_RANGE))
        else:
            actor.stand_or_jump(now, jumps=0.5)
        actor.maybe_carry(now)
    actor.add_figure()


class _ActorPair:
    """Two figures on one floor. How far apart they are says what they can do next."""

    def __init__(self, stage: _Stage, one: _Actor, other: _Actor):
        self.stage, self.one, self.other = stage, one, other
        self.touch_distance = one.reach + other.reach
        self.distance = (
            self.touch_distance if stage.rng.random() < 0.35 else stage.rng.uniform(self.touch_distance, _MAX_DISTANCE)
        )
        self.direction = int(stage.rng.choice([-1, 1]))  # from one to other
        other.position = one.position + self.direction * self.distance
        self.other_is_right = np.zeros(len(stage.time), int)  # whether the other is on the right of the one
        self.throw_mask = np.zeros(len(stage.time), bool)  # a ball, between them
        self.reversal_mask = np.zeros(len(stage.time), bool)  # from other to one

    def simulate(self) -> None:
        for now in self.stage.segments:
            may = self._compute_action_weights()
            weights = np.array(list(may.values()))
            action = self.stage.rng.choice(list(may), p=weights / weights.sum())
            back = bool(self.stage.rng.random() < 0.5)
            self.other_is_right[now], self.reversal_mask[now] = self.direction > 0, back
            self._perform(now, str(action), back)
        # with the world's seam between them, they are seen at opposite sides of the frame, and have nothing in common
        seam = np.floor(self.one.x / self.stage.world_width) != np.floor(self.other.x / self.stage.world_width)
        self.throw_mask &= ~seam
        number = len(self.stage.figures)
        for actor in (self.one, self.other):
            actor.actions[seam, PERSON_ACTIONS.index("throw (an object)") :] = False
        self._add_ball(self.one.add_figure(number + 1), self.other.add_figure(number))

    def _compute_action_weights(self) -> dict[str, float]:
        """What may come next, and how often it does."""
        step = _SPEED_RANGE[0] * _SEGMENT_SECONDS
        return {
            "nothing": 1.0,
            "follow": 1.6,
            "throw": 1.4,
            "approach": 2.2 if self.distance - step >= self.touch_distance else 0,
            "leave": 2.2 if self.distance + step <= _MAX_DISTANCE else 0,
            "circle": 2.0 if self.distance <= _MAX_CIRCLE_DISTANCE else 0,
            "touch": 2.0 if self.distance == self.touch_distance else 0,
        }

    def _perform(self, now: _TimeMask, action: str, back: bool) -> None:
        one, other, way = (self.other, self.one, -self.direction) if back else (self.one, self.other, self.direction)
        chance, since = self.stage.rng, self.stage.segment_time[now]
        match action:
            case "nothing":
                one.stand_or_jump(now, jumps=0.6)
                other.stand_or_jump(now, jumps=0.6)
            case "follow":
                speed = way * chance.uniform(*_SPEED_RANGE)
                one.move(now, speed)
                other.move(now, speed)
            case "throw" | "touch":
                one.stand_or_jump(now)
                other.stand_or_jump(now)
                self._raise_arms(now)
                self.throw_mask[now] = action == "throw"
            case "approach":
                room = (self.distance - self.touch_distance) / _SEGMENT_SECONDS
                meets = room <= 1.1 * _SPEED_RANGE[1] and chance.random() < 0.6
                speed = room if meets else chance.uniform(_SPEED_RANGE[0], min(_SPEED_RANGE[1], room))
                one.move(now, way * speed)
                other.stand_or_jump(now, jumps=0.35)
                self.distance = self.touch_distance if meets else self.distance - speed * _SEGMENT_SECONDS
            case "leave":
                speed = chance.uniform(
                    _SPEED_RANGE[0], min(_SPEED_RANGE[1], (_MAX_DISTANCE - self.distance) / _SEGMENT_SECONDS)
                )
                one.move(now, -way * speed)
                other.stand_or_jump(now, jumps=0.35)
                self.distance += speed * _SEGMENT_SECONDS
            case "circle":
                turn = math.pi * since / _SEGMENT_SECONDS
                high = one.base_floor > sum(self.stage.floor_range) / 2
                one.x[now] = other.position - way * self.distance * np.cos(turn)
                one.floor[now] += (-0.2 if high else 0.2) * np.sin(turn)
                one.position = other.position + way * self.distance
                other.stand_or_jump(now, jumps=0.35)
                self.direction = -self.direction
        match action:
            case "throw":
                one.mark_action(now, "throw (an object)")
                other.mark_action(now, "catch (an object)")
            case "touch":
                one.mark_action(now, "touch (a person)")
                other.mark_action(now, "touch (a person)")
            case "nothing":
                pass
            case _:
                one.mark_action(now, f"{action} (a person)")
        if action not in ("throw", "touch"):
            one.maybe_carry(now)
            other.maybe_carry(now)

    def _raise_arms(self, now: _TimeMask) -> None:
        """Their arms meet, or would, where the two were closer."""
        high = [SHOULDER_OFFSET[1] * actor.height for actor in (self.one, self.other)]
        for actor, mine, side in ((self.one, high[0], self.direction > 0), (self.other, high[1], self.direction < 0)):
            actor.arm_angles[now, int(side)] = math.asin((sum(high) / 2 - mine) / (ARM_LENGTH * actor.height))

    def _add_ball(self, one: StickFigure, other: StickFigure) -> None:
        """A ball flies from hand to hand in a second, then a new one; where it is at a moment is uniform too."""
        along = (self.stage.rng.random() + self.stage.time) % 1
        along = np.where(self.reversal_mask, 1 - along, along)
        starts, ends = (np.array([figure.locate_hand(0), figure.locate_hand(1)]) for figure in (one, other))
        frames = np.arange(len(along))
        start, end = starts[self.other_is_right, :, frames], ends[1 - self.other_is_right, :, frames]
        x, y = (start + along[:, None] * (end - start)).T
        depth = np.maximum(one.depth, other.depth) + 1e-3
        self.stage.add_ball(x, y - 0.6 * along * (1 - along), depth, where=self.throw_mask)
