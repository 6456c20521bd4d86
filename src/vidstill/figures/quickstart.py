"""What the quickstart found, as a table for the terminal and as the sections of its page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table as Terminal
from rich.text import Text as Words

from vidstill.figures.chart import Dash, Line, Point, chart
from vidstill.figures.curves import curve
from vidstill.figures.page import Charts, Facts, Picture, Section, Table, Text, page
from vidstill.figures.standing import Score, standing

METHODS = {"amd": "AMD", "mvd": "MVD", "maskagain": "MaskAgain", "dmae": "DMAE"}
"""The distillations that the road may be walked with, as their papers write them."""

NAMES = {
    "scratch": "Student, scratch",
    "videomae": "Student, VideoMAE",
    **{key: f"Student, {name}" for key, name in METHODS.items()},
    "teacher": "Teacher, VideoMAE",
    "image_teacher": "Image teacher, MAE",
}

INK = {"scratch": "#8b857d", "videomae": "#2f6fb0", **dict.fromkeys(METHODS, "#c4501b"), "teacher": "#26231f"}
"""The colour of each model, the same in the table and in every chart."""

_SHORT = {"scratch": "scratch", "videomae": "VideoMAE", **METHODS, "teacher": "teacher"}

PARTS = {
    "amd": (
        {"direct": "direct", "generation": "generated"},
        "squared distance to the teacher’s features",
        "Direct: at the places that both see. Generated: at the places that the teacher alone sees.",
    ),
    "mvd": (
        {"image": "image teacher", "video": "video teacher"},
        "smooth distance to a teacher’s features",
        "At the hidden places: the features that the image teacher has of a frame, and the video teacher of the clip.",
    ),
    "maskagain": (
        {"hint": "hint", "global": "global", "local": "local", "relation": "relation"},
        "distance to the teacher",
        "At the places that both see: the strongest tokens, what attention takes from the whole clip and from each "
        "slot of time, and how tokens of different clips are related.",
    ),
    "dmae": (
        {"alignment": "alignment"},
        "distance to the teacher’s features",
        "Between directions of features at three quarters of both models’ depth, at the places that both see.",
    ),
}
"""What a distillation brings down, beside pixels: parts of its loss and their names, the axis, and what they are."""

_DASHES: tuple[Dash, ...] = ("plain", "dashed", "dotted", "dash-dotted")

_HEAD = (
    "model",
    "top-1, %",
    "linear probe, %",
    "parameters, M",
    "GFLOPs per view",
    "pre-training, s",
    "fine-tuning, s",
)
_NARROW = (
    "model",
    "top-1, %",
    "linear\nprobe, %",
    "params,\nM",
    "GFLOPs\nper view",
    "pre-\ntrain, s",
    "fine-\ntune, s",
)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One of the models that were fine-tuned alike, and what it took."""

    key: str  # of INK
    name: str
    top1: float  # percent
    top5: float
    probe: float  # top-1 of the linear probe before fine-tuning, percent
    parameters: int  # of the classifier
    operations: int  # of one view, in multiply-adds
    pretraining_seconds: float  # 0: from scratch; a teacher's are its own
    finetuning_seconds: float


@dataclass(frozen=True, kw_only=True)
class Findings:
    contenders: tuple[Contender, ...]
    method: str  # of METHODS: how the student was distilled
    classes: int
    labelled: int  # clips to fine-tune on
    unlabelled: int  # clips to pre-train on
    videos: int  # clips that were tested on
    seed: int
    image_teacher_seconds: float = 0.0  # of its pre-training, where the method has one

    @property
    def chance(self) -> float:
        """Top-1 of a guess, in percent."""
        return 100 / self.classes


def standard_error(percent: float, videos: int) -> float:
    """Of a share of so many videos, in percent (binomial)."""
    return sqrt(percent * (100 - percent) / videos)


def cells(contender: Contender, videos: int) -> tuple[str, ...]:
    """A contender's row of the table, as `_HEAD` names it."""
    return (
        contender.name,
        f"{contender.top1:.1f} ± {standard_error(contender.top1, videos):.1f}",
        f"{contender.probe:.1f}",
        f"{contender.parameters / 1e6:.3g}",
        f"{contender.operations / 1e9:.3g}",
        f"{contender.pretraining_seconds:.0f}" if contender.pretraining_seconds else "–",
        f"{contender.finetuning_seconds:.0f}",
    )


def terminal(found: Findings) -> Group:
    """The table for a terminal of 80 columns, and how it is to be read."""
    table = Terminal(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, name in enumerate(_NARROW):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for contender in found.contenders:
        table.add_row(*map(escape, cells(contender, found.videos)))
    return Group(table, Words(reading(found) + "\n"), Words(scale(found) + "\n"))


def reading(found: Findings) -> str:
    """How the numbers are to be read."""
    teacher = next(each for each in found.contenders if each.key == "teacher")
    seconds = [f"{each:.0f} s" for each in (teacher.pretraining_seconds, found.image_teacher_seconds) if each]
    return (
        f"Top-1 on {found.videos} clips of {found.classes} classes (chance is {found.chance:.1f} %), ± one binomial "
        "standard error. The linear probe reads the encoder before fine-tuning; from scratch that is a random one. "
        f"{METHODS[found.method]}’s student also needed {teachers(found)}, whose pre-training took "
        f"{' and '.join(seconds)}."
    )


def teachers(found: Findings) -> str:
    """Whom the distilled student learns from."""
    return "the teacher and one of images" if found.image_teacher_seconds else "the teacher"


def scale(found: Findings) -> str:
    """What so small a scale can show."""
    noise = 2 * sqrt(2) * max(standard_error(each.top1, found.videos) for each in found.contenders)
    return (
        "So small a scale shows that the road works and what each part of it costs, not which method is better: this "
        f"is one seed, the choice of test clips alone may set two of these numbers {noise:.0f} points apart, and tiny "
        "models trained for minutes on drawn clips say little about large ones trained for days on real video."
    )


def ranking(found: Findings) -> Charts:
    scores = [
        Score(
            name=_SHORT[each.key],
            dot=each.top1,
            error=standard_error(each.top1, found.videos),
            ring=each.probe,
            colour=INK[each.key],
        )
        for each in found.contenders
    ]
    chart = standing(scores, chance=found.chance, axis="top-1, %")
    caption = "Dot: fine-tuned, with one standard error to either side. Ring: linear probe of the frozen encoder."
    return Charts([("Top-1 on the test clips", chart, caption)])


def nearness(alike: Mapping[str, Sequence[float]], method: str, distilling: Sequence[Mapping[str, Any]]) -> Charts:
    """How near the students come to the teacher: their layers' alignment, and the losses that bring it about.

    Args:
        alike: for each student its layers' alignment with the teacher's.
        method: how the student was distilled.
        distilling: the steps of its log.
    """
    lines = [
        Line(_SHORT[key], _by_block(values), INK[key], "dashed" if key == "scratch" else "plain")
        for key, values in alike.items()
    ]
    named, axis, caption = PARTS[method]
    parts = [
        Line(name, curve(distilling, part), INK[method], dash)
        for (part, name), dash in zip(named.items(), _DASHES, strict=False)
    ]
    return Charts(
        [
            (
                "Likeness to the teacher, layer by layer",
                chart(lines, x="student’s block", y="linear CKA", y_range=(0.0, 1.0), dots=True),
                "Each block beside the teacher’s at the same share of its depth, before fine-tuning, on whole test "
                "clips. 1: alike up to rotation and scale; 0: unrelated. What all clips share at a place is taken off.",
            ),
            (
                f"What {METHODS[method]} brings down",
                chart(parts, x="step", y=axis, log_x=True),
                caption,
            ),
        ]
    )


def _by_block(values: Sequence[float]) -> list[Point]:
    return [(float(block), value) for block, value in enumerate(values, start=1)]


def losses(pretraining: Mapping[str, Sequence[Mapping[str, Any]]], tuning: Mapping[str, Sequence[Any]]) -> Charts:
    """The curves of both trainings, by model: the steps of their logs."""
    rebuilt = {key: curve(steps, "reconstruction") for key, steps in pretraining.items()}
    pixels = [Line(_SHORT[key], points, INK[key]) for key, points in rebuilt.items() if points]
    distilled = [
        f"{METHODS[key]}’s curve is its pixel part." if points else f"{METHODS[key]} rebuilds no pixels."
        for key, points in rebuilt.items()
        if key in METHODS
    ]
    labels = [Line(_SHORT[key], curve(steps), INK[key]) for key, steps in tuning.items()]
    return Charts(
        [
            (
                "Pre-training: rebuilding hidden pixels",
                chart(pixels, x="step", y="squared error", log_x=True),
                " ".join(["On hidden tubelets of the clips without labels.", *distilled]),
            ),
            (
                "Fine-tuning: naming the movement",
                chart(labels, x="step", y="cross-entropy", log_x=True),
                "On the labelled training clips, with the recipe’s label smoothing.",
            ),
        ]
    )


def report(found: Findings, *, rebuilt: Picture, near: Charts, curves: Charts, facts: Sequence[tuple[str, str]]) -> str:
    """The page."""
    rows = [cells(each, found.videos) for each in found.contenders]
    colours = [INK[each.key] for each in found.contenders]
    return page(
        above="vidstill quickstart",
        title="A teacher, its student, and what pre‑training was worth",
        lead=(
            f"On {found.unlabelled} drawn clips without labels, a VideoMAE teacher was pre-trained, and a smaller "
            f"student twice: by VideoMAE on pixels, and by {METHODS[found.method]} from {teachers(found)}. Then the "
            "same student was fine-tuned three times, from scratch and from both, and the teacher as well, all with "
            f"one recipe on {found.labelled} labelled clips. The classes differ in motion only: no single frame gives "
            "them away."
        ),
        sections=[
            Section("What came out", [Table(_HEAD, rows, colours, reading(found)), Text(scale(found), "note")]),
            Section("Side by side", [ranking(found)]),
            Section("What the student sees, and what it makes of it", [rebuilt]),
            Section("How near the student comes to its teacher", [near]),
            Section("How the losses went", [curves]),
            Section("What was run", [Facts(facts)]),
        ],
        below="Made by vidstill quickstart. Whatever came out is what is shown.",
    )
