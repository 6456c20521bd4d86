"""Who does what in a made clip with boxes: figures alone and in twos, each other things every two seconds."""

import math

import numpy as np
from jaxtyping import Bool

from vidstill.synthetic.scene import ACTIONS, ARM, MARGIN, SHOULDER, Ball, Figure, Number, Scene
from vidstill.utils.rng import numpy_chance

_GROUPS = ((2,), (2, 1), (2, 1), (2, 2))  # two together, or one alone
_HEIGHTS = (0.36, 0.44)
_SPEEDS = (0.2, 0.34)  # shorter sides in a second
_PART = 2.0  # seconds for which a figure goes on doing the same
_BEFORE = 0.5  # of the first such part are over when a clip begins, so that no whole second is near a change
_FURTHEST = 1.0  # that two who have to do with each other are apart
_ROUND = 0.45  # the furthest at which one circles the other
_CARRIES = 0.25  # how probable it is, for a part

_Now = Bool[np.ndarray, "t"]


def act(seed: int, *, seconds: int, fps: int, size: tuple[int, int]) -> Scene:
    """What happens in the clip of this seed; size in rows and columns.

    From left to right the world is a circle, somewhat longer than the frame is wide, on which everybody starts
    anywhere, all places being alike. So at every moment a figure's place is uniform, whichever way it moves, and no
    single frame tells left from right or either from standing; a hop's mean height is that of who stands.
    """
    chance = numpy_chance(seed, "scene")
    stage = _Stage(chance, seconds=seconds, fps=fps, size=size)
    groups = _GROUPS[chance.integers(len(_GROUPS))]
    lanes = (chance.permutation(len(groups)) + chance.random(len(groups))) / len(groups)
    highest, lowest = stage.floors
    for persons, lane in zip(groups, lanes, strict=True):
        floor = highest + lane * (lowest - highest)
        if persons == 1:
            _alone(stage, _Actor(stage, floor))
        else:
            _Two(stage, _Actor(stage, floor), _Actor(stage, floor)).act()
    return Scene(figures=tuple(stage.figures), balls=tuple(stage.balls))


class _Stage:
    """The frames of a clip, and who has been on it so far."""

    def __init__(self, chance: np.random.Generator, *, seconds: int, fps: int, size: tuple[int, int]):
        self.chance = chance
        self.time = np.arange(seconds * fps) / fps
        part = np.floor((self.time + _BEFORE) / _PART)
        self.since = self.time + _BEFORE - part * _PART
        self.parts = [part == number for number in range(int(part[-1]) + 1)]
        self.world = size[1] / min(size) + 2 * MARGIN
        self.floors = (_HEIGHTS[1] + 0.04, size[0] / min(size) - 0.06)
        self.figures: list[Figure] = []
        self.balls: list[Ball] = []

    def in_frame(self, x: Number) -> Number:
        """From a place on the world's circle to one in the frame."""
        return x % self.world - MARGIN

    def put(self, x: Number, y: Number, depth: Number, *, where: _Now) -> None:
        """A ball, if it is anywhere."""
        if where.any():
            self.balls.append(Ball(*(np.where(where, number, np.nan) for number in (x, y, depth))))


class _Actor:
    """A figure while it does one part after another."""

    def __init__(self, stage: _Stage, floor: float):
        chance, frames = stage.chance, len(stage.time)
        self.stage = stage
        self.height = chance.uniform(*_HEIGHTS)
        self.reach = (SHOULDER[0] + ARM) * self.height
        self.here = chance.uniform(0, stage.world)  # when a part begins
        self.ground = floor
        self.x, self.floor, self.up = np.zeros(frames), np.full(frames, floor), np.zeros(frames)
        self.arms = np.tile(chance.uniform(-1.2, -0.3, 2), (frames, 1))
        self.does = np.zeros((frames, len(ACTIONS)), bool)
        self.side = int(chance.integers(2))  # of the hand that carries
        self.carries = np.zeros(frames, bool)

    def do(self, now: _Now, action: str) -> None:
        self.does[now, ACTIONS.index(action)] = True

    def move(self, now: _Now, speed: float) -> None:
        self.x[now] = self.here + speed * self.stage.since[now]
        self.here += speed * _PART
        self.do(now, "move right" if speed > 0 else "move left")

    def stay(self, now: _Now, *, jumps: float = 0) -> None:
        """Stands or, as probably as that, jumps."""
        self.x[now] = self.here
        high, often, phase, choice = self.stage.chance.uniform((0.12, 1.2, 0, 0), (0.17, 1.6, 1, 1))
        if choice < jumps:
            hop = (phase + often * self.stage.time[now]) % 1
            self.up[now] = high * (4 * hop * (1 - hop) - 2 / 3)  # a throw's parabola
        self.do(now, "jump" if choice < jumps else "stand still")

    def may_carry(self, now: _Now) -> None:
        if self.stage.chance.random() < _CARRIES:
            self.carries |= now
            self.do(now, "carry (an object)")

    def enter(self, other: int | None = None) -> Figure:
        figure = Figure(
            number=len(self.stage.figures),
            height=self.height,
            x=self.stage.in_frame(self.x),
            y=self.floor - self.up,
            depth=self.floor,
            arms=self.arms,
            does=self.does,
            other=other,
        )
        self.stage.figures.append(figure)
        self.stage.put(*figure.hand(self.side), figure.depth + 1e-3, where=self.carries)
        return figure


def _alone(stage: _Stage, actor: _Actor) -> None:
    for now in stage.parts:
        if stage.chance.random() < 0.55:
            actor.move(now, stage.chance.choice([-1, 1]) * stage.chance.uniform(*_SPEEDS))
        else:
            actor.stay(now, jumps=0.5)
        actor.may_carry(now)
    actor.enter()


class _Two:
    """Two figures on one floor. How far apart they are says what they can do next."""

    def __init__(self, stage: _Stage, one: _Actor, other: _Actor):
        self.stage, self.one, self.other = stage, one, other
        self.touching = one.reach + other.reach
        self.apart = self.touching if stage.chance.random() < 0.35 else stage.chance.uniform(self.touching, _FURTHEST)
        self.way = int(stage.chance.choice([-1, 1]))  # from one to other
        other.here = one.here + self.way * self.apart
        self.right = np.zeros(len(stage.time), int)  # whether the other is on the right of the one
        self.flies = np.zeros(len(stage.time), bool)  # a ball, between them
        self.back = np.zeros(len(stage.time), bool)  # from other to one

    def act(self) -> None:
        for now in self.stage.parts:
            may = self._possible()
            weights = np.array(list(may.values()))
            action = self.stage.chance.choice(list(may), p=weights / weights.sum())
            back = bool(self.stage.chance.random() < 0.5)
            self.right[now], self.back[now] = self.way > 0, back
            self._do(now, str(action), back)
        # with the world's seam between them, they are seen at opposite sides of the frame, and have nothing in common
        seam = np.floor(self.one.x / self.stage.world) != np.floor(self.other.x / self.stage.world)
        self.flies &= ~seam
        number = len(self.stage.figures)
        for actor in (self.one, self.other):
            actor.does[seam, ACTIONS.index("throw (an object)") :] = False
        self._throw(self.one.enter(number + 1), self.other.enter(number))

    def _possible(self) -> dict[str, float]:
        """What may come next, and how often it does."""
        step = _SPEEDS[0] * _PART
        return {
            "nothing": 1.0,
            "follow": 1.6,
            "throw": 1.4,
            "approach": 2.2 if self.apart - step >= self.touching else 0,
            "leave": 2.2 if self.apart + step <= _FURTHEST else 0,
            "circle": 2.0 if self.apart <= _ROUND else 0,
            "touch": 2.0 if self.apart == self.touching else 0,
        }

    def _do(self, now: _Now, action: str, back: bool) -> None:
        one, other, way = (self.other, self.one, -self.way) if back else (self.one, self.other, self.way)
        chance, since = self.stage.chance, self.stage.since[now]
        match action:
            case "nothing":
                one.stay(now, jumps=0.6)
                other.stay(now, jumps=0.6)
            case "follow":
                speed = way * chance.uniform(*_SPEEDS)
                one.move(now, speed)
                other.move(now, speed)
            case "throw" | "touch":
                one.stay(now)
                other.stay(now)
                self._reach_out(now)
                self.flies[now] = action == "throw"
            case "approach":
                room = (self.apart - self.touching) / _PART
                meets = room <= 1.1 * _SPEEDS[1] and chance.random() < 0.6
                speed = room if meets else chance.uniform(_SPEEDS[0], min(_SPEEDS[1], room))
                one.move(now, way * speed)
                other.stay(now, jumps=0.35)
                self.apart = self.touching if meets else self.apart - speed * _PART
            case "leave":
                speed = chance.uniform(_SPEEDS[0], min(_SPEEDS[1], (_FURTHEST - self.apart) / _PART))
                one.move(now, -way * speed)
                other.stay(now, jumps=0.35)
                self.apart += speed * _PART
            case "circle":
                turn = math.pi * since / _PART
                high = one.ground > sum(self.stage.floors) / 2
                one.x[now] = other.here - way * self.apart * np.cos(turn)
                one.floor[now] += (-0.2 if high else 0.2) * np.sin(turn)
                one.here = other.here + way * self.apart
                other.stay(now, jumps=0.35)
                self.way = -self.way
        match action:
            case "throw":
                one.do(now, "throw (an object)")
                other.do(now, "catch (an object)")
            case "touch":
                one.do(now, "touch (a person)")
                other.do(now, "touch (a person)")
            case "nothing":
                pass
            case _:
                one.do(now, f"{action} (a person)")
        if action not in ("throw", "touch"):
            one.may_carry(now)
            other.may_carry(now)

    def _reach_out(self, now: _Now) -> None:
        """Their arms meet, or would, where the two were closer."""
        high = [SHOULDER[1] * actor.height for actor in (self.one, self.other)]
        for actor, mine, side in ((self.one, high[0], self.way > 0), (self.other, high[1], self.way < 0)):
            actor.arms[now, int(side)] = math.asin((sum(high) / 2 - mine) / (ARM * actor.height))

    def _throw(self, one: Figure, other: Figure) -> None:
        """A ball flies from hand to hand in a second, then a new one; where it is at a moment is uniform too."""
        along = (self.stage.chance.random() + self.stage.time) % 1
        along = np.where(self.back, 1 - along, along)
        starts, ends = (np.array([figure.hand(0), figure.hand(1)]) for figure in (one, other))
        frames = np.arange(len(along))
        start, end = starts[self.right, :, frames], ends[1 - self.right, :, frames]
        x, y = (start + along[:, None] * (end - start)).T
        depth = np.maximum(one.depth, other.depth) + 1e-3
        self.stage.put(x, y - 0.6 * along * (1 - along), depth, where=self.flies)
