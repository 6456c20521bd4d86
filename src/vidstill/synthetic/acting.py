"""Decides what the figures of a scene do: alone and in pairs, something else every two seconds."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from vidstill.synthetic.figures import ARM_LENGTH, PERSON_ACTIONS, SHOULDER_OFFSET, Ball, Scene, StickFigure
from vidstill.synthetic.sprites import PerFrame
from vidstill.utils.rng import numpy_rng

WORLD_MARGIN = 0.22
"""Width of the world left and right of the frame, in shorter sides of the frame: a figure there is invisible."""

_GROUP_SIZES = ((2,), (2, 1), (2, 1), (2, 2))  # figures that act together
_HEIGHT_RANGE = (0.36, 0.44)  # in shorter sides of the frame
_SPEED_RANGE = (0.2, 0.34)  # in shorter sides of the frame per second
_SEGMENT_SECONDS = 2.0  # for which a figure continues one action
_LEAD_SECONDS = 0.5  # of the first segment pass before the clip: no change is near a whole second
_MAX_DISTANCE = 1.0  # of two interacting figures
_MAX_CIRCLE_DISTANCE = 0.45
_CARRY_PROBABILITY = 0.25  # in a segment

_TimeMask = Bool[np.ndarray, "t"]


@dataclass(kw_only=True)
class _Actor(StickFigure):
    """A figure during the simulation: x is its place on the world's circle, y its height of jump, negated."""

    floor: float  # depth of its feet, unless it circles another
    position: float  # x at the start of the next segment
    carrying_hand: int  # left (0) or right (1)
    carry_mask: _TimeMask  # frames in which it carries a ball

    @property
    def reach(self) -> float:
        return (SHOULDER_OFFSET[0] + ARM_LENGTH) * self.height

    def mark(self, now: _TimeMask, action: str) -> None:
        self.actions[now, PERSON_ACTIONS.index(action)] = True


def generate_scene(seed: int, *, seconds: int, fps: int, size: tuple[int, int]) -> Scene:
    """Simulate the clip of this seed.

    Horizontally the world is a circle, somewhat longer than the frame is wide, and every figure starts at a uniformly
    drawn place on it. So at every moment the place of a figure is uniform, whichever way it moves, and no single frame
    tells left from right or either from rest; the mean height of a jump is that of a figure at rest.

    Args:
        seed: Decides the scene.
        seconds: Length of the clip.
        fps: Frames per second.
        size: Rows and columns of the frame.
    """
    rng = numpy_rng(seed, "scene")
    stage = _Stage(rng, seconds=seconds, fps=fps, size=size)
    groups = _GROUP_SIZES[rng.integers(len(_GROUP_SIZES))]
    lanes = (rng.permutation(len(groups)) + rng.random(len(groups))) / len(groups)
    highest, lowest = stage.floor_range
    for persons, lane in zip(groups, lanes, strict=True):
        actors = [stage.create_actor(highest + lane * (lowest - highest)) for _ in range(persons)]
        if persons == 1:
            stage.simulate_single(actors[0])
        else:
            _Pair(stage, *actors).simulate()
    return Scene(figures=tuple(stage.figures), balls=tuple(stage.balls))


class _Stage:
    """The frames of a clip, and the figures and balls that are complete."""

    def __init__(self, rng: np.random.Generator, *, seconds: int, fps: int, size: tuple[int, int]):
        self.rng = rng
        self.time = np.arange(seconds * fps) / fps
        segment = np.floor((self.time + _LEAD_SECONDS) / _SEGMENT_SECONDS)
        self.segment_time = self.time + _LEAD_SECONDS - segment * _SEGMENT_SECONDS
        self.segments = [segment == number for number in range(int(segment[-1]) + 1)]
        self.world_width = size[1] / min(size) + 2 * WORLD_MARGIN
        self.floor_range = (_HEIGHT_RANGE[1] + 0.04, size[0] / min(size) - 0.06)
        self.figures: list[StickFigure] = []
        self.balls: list[Ball] = []

    def create_actor(self, floor: float) -> _Actor:
        rng, frames = self.rng, len(self.time)
        return _Actor(
            index=-1,
            height=rng.uniform(*_HEIGHT_RANGE),
            position=rng.uniform(0, self.world_width),
            arm_angles=np.tile(rng.uniform(-1.2, -0.3, 2), (frames, 1)),
            carrying_hand=int(rng.integers(2)),
            floor=floor,
            x=np.zeros(frames),
            y=np.zeros(frames),
            depth=np.full(frames, floor),
            actions=np.zeros((frames, len(PERSON_ACTIONS)), bool),
            carry_mask=np.zeros(frames, bool),
        )

    def add_figure(self, actor: _Actor, partner: int | None = None) -> None:
        """Move an actor from the world to the frame, with the ball that it carries."""
        actor.index, actor.partner = len(self.figures), partner
        actor.x = actor.x % self.world_width - WORLD_MARGIN
        actor.y = actor.depth + actor.y
        self.figures.append(actor)
        self.add_ball(*actor.locate_hand(actor.carrying_hand), actor.depth + 1e-3, where=actor.carry_mask)

    def add_ball(self, x: PerFrame, y: PerFrame, depth: PerFrame, *, where: _TimeMask) -> None:
        if where.any():
            self.balls.append(Ball(*(np.where(where, number, np.nan) for number in (x, y, depth))))

    def simulate_single(self, actor: _Actor) -> None:
        for now in self.segments:
            if self.rng.random() < 0.55:
                self.move(actor, now, self.rng.choice([-1, 1]) * self.rng.uniform(*_SPEED_RANGE))
            else:
                self.stand_or_jump(actor, now, jump_probability=0.5)
            self.maybe_carry(actor, now)
        self.add_figure(actor)

    def move(self, actor: _Actor, now: _TimeMask, speed: float) -> None:
        actor.x[now] = actor.position + speed * self.segment_time[now]
        actor.position += speed * _SEGMENT_SECONDS
        actor.mark(now, "move right" if speed > 0 else "move left")

    def stand_or_jump(self, actor: _Actor, now: _TimeMask, *, jump_probability: float = 0) -> None:
        actor.x[now] = actor.position
        height, frequency, phase, choice = self.rng.uniform((0.12, 1.2, 0, 0), (0.17, 1.6, 1, 1))
        if choice < jump_probability:
            hop = (phase + frequency * self.time[now]) % 1
            actor.y[now] = -(height * (4 * hop * (1 - hop) - 2 / 3))  # the parabola of a throw
        actor.mark(now, "jump" if choice < jump_probability else "stand still")

    def maybe_carry(self, actor: _Actor, now: _TimeMask) -> None:
        if self.rng.random() < _CARRY_PROBABILITY:
            actor.carry_mask |= now
            actor.mark(now, "carry (an object)")


class _Pair:
    """Two figures on one floor; their distance decides what they can do next."""

    def __init__(self, stage: _Stage, one: _Actor, other: _Actor):
        self.stage, self.one, self.other = stage, one, other
        self.touch_distance = one.reach + other.reach
        touching = stage.rng.random() < 0.35
        self.distance = self.touch_distance if touching else stage.rng.uniform(self.touch_distance, _MAX_DISTANCE)
        self.direction = int(stage.rng.choice([-1, 1]))  # of `other`, seen from `one`
        other.position = one.position + self.direction * self.distance
        self.other_is_right = np.zeros(len(stage.time), int)
        self.throw_mask = np.zeros(len(stage.time), bool)
        self.reversal_mask = np.zeros(len(stage.time), bool)  # `other` throws

    def simulate(self) -> None:
        stage, one, other = self.stage, self.one, self.other
        for now in stage.segments:
            step = _SPEED_RANGE[0] * _SEGMENT_SECONDS
            weights = {
                "nothing": 1.0,
                "follow": 1.6,
                "throw": 1.4,
                "approach": 2.2 if self.distance - step >= self.touch_distance else 0,
                "leave": 2.2 if self.distance + step <= _MAX_DISTANCE else 0,
                "circle": 2.0 if self.distance <= _MAX_CIRCLE_DISTANCE else 0,
                "touch": 2.0 if self.distance == self.touch_distance else 0,
            }
            total = np.array(list(weights.values()))
            action = str(stage.rng.choice(list(weights), p=total / total.sum()))
            back = bool(stage.rng.random() < 0.5)
            self.other_is_right[now], self.reversal_mask[now] = self.direction > 0, back
            self._perform(now, action, back)
        # with the world's seam between them they are at opposite sides of the frame, and do not interact
        seam = np.floor(one.x / stage.world_width) != np.floor(other.x / stage.world_width)
        self.throw_mask &= ~seam
        number = len(stage.figures)
        for actor, partner in ((one, number + 1), (other, number)):
            actor.actions[seam, PERSON_ACTIONS.index("throw (an object)") :] = False
            stage.add_figure(actor, partner)
        self._add_thrown_ball()

    def _perform(self, now: _TimeMask, action: str, back: bool) -> None:
        one, other, way = (self.other, self.one, -self.direction) if back else (self.one, self.other, self.direction)
        stage, rng = self.stage, self.stage.rng
        slowest, fastest = _SPEED_RANGE
        match action:
            case "nothing":
                for actor in (one, other):
                    stage.stand_or_jump(actor, now, jump_probability=0.6)
            case "follow":
                speed = way * rng.uniform(*_SPEED_RANGE)
                for actor in (one, other):
                    stage.move(actor, now, speed)
            case "throw" | "touch":
                for actor in (one, other):
                    stage.stand_or_jump(actor, now)
                # the inner arms point at each other: the hands meet if the two are close enough
                heights = [SHOULDER_OFFSET[1] * actor.height for actor in (self.one, self.other)]
                sides = int(self.direction > 0), int(self.direction < 0)
                for actor, height, side in zip((self.one, self.other), heights, sides, strict=True):
                    rise = (sum(heights) / 2 - height) / (ARM_LENGTH * actor.height)
                    actor.arm_angles[now, side] = math.asin(rise)
                self.throw_mask[now] = action == "throw"
            case "approach":
                room = (self.distance - self.touch_distance) / _SEGMENT_SECONDS
                meets = room <= 1.1 * fastest and rng.random() < 0.6
                speed = room if meets else rng.uniform(slowest, min(fastest, room))
                stage.move(one, now, way * speed)
                self.distance = self.touch_distance if meets else self.distance - speed * _SEGMENT_SECONDS
            case "leave":
                speed = rng.uniform(slowest, min(fastest, (_MAX_DISTANCE - self.distance) / _SEGMENT_SECONDS))
                stage.move(one, now, -way * speed)
                self.distance += speed * _SEGMENT_SECONDS
            case "circle":
                turn = math.pi * stage.segment_time[now] / _SEGMENT_SECONDS
                in_front = one.floor > sum(stage.floor_range) / 2
                one.x[now] = other.position - way * self.distance * np.cos(turn)
                one.depth[now] += (-0.2 if in_front else 0.2) * np.sin(turn)
                one.position = other.position + way * self.distance
                self.direction = -self.direction
        if action in ("approach", "leave", "circle"):
            stage.stand_or_jump(other, now, jump_probability=0.35)
        if action != "nothing":
            one.mark(now, "throw (an object)" if action == "throw" else f"{action} (a person)")
        if action in ("throw", "touch"):
            other.mark(now, "catch (an object)" if action == "throw" else "touch (a person)")
        else:
            stage.maybe_carry(one, now)
            stage.maybe_carry(other, now)

    def _add_thrown_ball(self) -> None:
        """Let a ball fly from hand to hand each second; its phase is uniform."""
        along = (self.stage.rng.random() + self.stage.time) % 1
        along = np.where(self.reversal_mask, 1 - along, along)
        starts, ends = (np.array([actor.locate_hand(0), actor.locate_hand(1)]) for actor in (self.one, self.other))
        frames = np.arange(len(along))
        start, end = starts[self.other_is_right, :, frames], ends[1 - self.other_is_right, :, frames]
        x, y = (start + along[:, None] * (end - start)).T
        depth = np.maximum(self.one.depth, self.other.depth) + 1e-3
        self.stage.add_ball(x, y - 0.6 * along * (1 - along), depth, where=self.throw_mask)
