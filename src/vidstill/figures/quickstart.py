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

from vidstill.figures.charts import ChartLine, ChartPoint, LineStyle, ModelScore, draw_line_chart, draw_score_chart
from vidstill.figures.curves import extract_loss_curve
from vidstill.figures.page import PageCharts, PageFacts, PageImage, PageSection, PageTable, PageText, render_page

METHOD_NAMES = {"amd": "AMD", "mvd": "MVD", "maskagain": "MaskAgain", "dmae": "DMAE"}
"""The distillations that the road may be walked with, as their papers write them."""

MODEL_NAMES = {
    "scratch": "Student, scratch",
    "videomae": "Student, VideoMAE",
    **{key: f"Student, {name}" for key, name in METHOD_NAMES.items()},
    "teacher": "Teacher, VideoMAE",
    "image_teacher": "Image teacher, MAE",
}

MODEL_COLORS = {
    "scratch": "#8b857d",
    "videomae": "#2f6fb0",
    **dict.fromkeys(METHOD_NAMES, "#c4501b"),
    "teacher": "#26231f",
}
"""The colour of each model, the same in the table and in every chart."""

_SHORT_MODEL_NAMES = {"scratch": "scratch", "videomae": "VideoMAE", **METHOD_NAMES, "teacher": "teacher"}

LOSS_PARTS = {
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

_LINE_STYLES: tuple[LineStyle, ...] = ("solid", "dashed", "dotted", "dashdot")

_TABLE_HEADER = (
    "model",
    "top-1, %",
    "linear probe, %",
    "parameters, M",
    "GFLOPs per view",
    "pre-training, s",
    "fine-tuning, s",
)
_NARROW_TABLE_HEADER = (
    "model",
    "top-1, %",
    "linear\nprobe, %",
    "params,\nM",
    "GFLOPs\nper view",
    "pre-\ntrain, s",
    "fine-\ntune, s",
)


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """One of the models that were fine-tuned alike, and what it took."""

    key: str  # of INK
    name: str
    top1: float  # percent
    top5: float
    probe_top1: float  # top-1 of the linear probe before fine-tuning, percent
    num_params: int  # of the classifier
    flops: int  # of one view, in multiply-adds
    pretraining_seconds: float  # 0: from scratch; a teacher's are its own
    finetuning_seconds: float


@dataclass(frozen=True, kw_only=True)
class QuickstartResult:
    models: tuple[ModelResult, ...]
    method: str  # of METHODS: how the student was distilled
    num_classes: int
    num_finetune_clips: int  # clips to fine-tune on
    num_pretrain_clips: int  # clips to pre-train on
    num_test_clips: int  # clips that were tested on
    seed: int
    image_teacher_seconds: float = 0.0  # of its pre-training, where the method has one

    @property
    def chance_top1(self) -> float:
        """Top-1 of a guess, in percent."""
        return 100 / self.num_classes


def compute_standard_error(percent: float, num_videos: int) -> float:
    """Of a share of so many videos, in percent (binomial)."""
    return sqrt(percent * (100 - percent) / num_videos)


def format_result_row(model: ModelResult, num_videos: int) -> tuple[str, ...]:
    """A contender's row of the table, as `_TABLE_HEADER` names it."""
    return (
        model.name,
        f"{model.top1:.1f} ± {compute_standard_error(model.top1, num_videos):.1f}",
        f"{model.probe_top1:.1f}",
        f"{model.num_params / 1e6:.3g}",
        f"{model.flops / 1e9:.3g}",
        f"{model.pretraining_seconds:.0f}" if model.pretraining_seconds else "–",
        f"{model.finetuning_seconds:.0f}",
    )


def make_terminal_table(result: QuickstartResult) -> Group:
    """The table for a terminal of 80 columns, and how it is to be read."""
    table = Terminal(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, name in enumerate(_NARROW_TABLE_HEADER):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for contender in result.models:
        table.add_row(*map(escape, format_result_row(contender, result.num_test_clips)))
    return Group(table, Words(describe_results(result) + "\n"), Words(describe_noise(result) + "\n"))


def describe_results(result: QuickstartResult) -> str:
    """How the numbers are to be read."""
    teacher = next(each for each in result.models if each.key == "teacher")
    seconds = [f"{each:.0f} s" for each in (teacher.pretraining_seconds, result.image_teacher_seconds) if each]
    return (
        f"Top-1 on {result.num_test_clips} clips of {result.num_classes} classes (chance is {result.chance_top1:.1f} %), ± one binomial "
        "standard error. The linear probe reads the encoder before fine-tuning; from scratch that is a random one. "
        f"{METHOD_NAMES[result.method]}’s student also needed {describe_teachers(result)}, whose pre-training took "
        f"{' and '.join(seconds)}."
    )


def describe_teachers(result: QuickstartResult) -> str:
    """Whom the distilled student learns from."""
    return "the teacher and one of images" if result.image_teacher_seconds else "the teacher"


def describe_noise(result: QuickstartResult) -> str:
    """What so small a scale can show."""
    noise = 2 * sqrt(2) * max(compute_standard_error(each.top1, result.num_test_clips) for each in result.models)
    return (
        "So small a scale shows that the road works and what each part of it costs, not which method is better: this "
        f"is one seed, the choice of test clips alone may set two of these numbers {noise:.0f} points apart, and tiny "
        "models trained for minutes on drawn clips say little about large ones trained for days on real video."
    )


def draw_top1_chart(result: QuickstartResult) -> PageCharts:
    scores = [
        ModelScore(
            name=_SHORT_MODEL_NAMES[each.key],
            top1=each.top1,
            standard_error=compute_standard_error(each.top1, result.num_test_clips),
            probe_top1=each.probe_top1,
            color=MODEL_COLORS[each.key],
        )
        for each in result.models
    ]
    chart = draw_score_chart(scores, chance_level=result.chance_top1, x_label="top-1, %")
    caption = "Dot: fine-tuned, with one standard error to either side. Ring: linear probe of the frozen encoder."
    return PageCharts([("Top-1 on the test clips", chart, caption)])


def draw_similarity_charts(
    similarity: Mapping[str, Sequence[float]], method: str, distillation_log: Sequence[Mapping[str, Any]]
) -> PageCharts:
    """How near the students come to the teacher: their layers' alignment, and the losses that bring it about.

    Args:
        similarity: for each student its layers' alignment with the teacher's.
        method: how the student was distilled.
        distillation_log: the steps of its log.
    """
    lines = [
        ChartLine(
            _SHORT_MODEL_NAMES[key],
            _make_block_points(values),
            MODEL_COLORS[key],
            "dashed" if key == "scratch" else "solid",
        )
        for key, values in similarity.items()
    ]
    named, axis, caption = LOSS_PARTS[method]
    parts = [
        ChartLine(name, extract_loss_curve(distillation_log, part), MODEL_COLORS[method], dash)
        for (part, name), dash in zip(named.items(), _LINE_STYLES, strict=False)
    ]
    return PageCharts(
        [
            (
                "Likeness to the teacher, layer by layer",
                draw_line_chart(
                    lines, x_label="student’s block", y_label="linear CKA", y_range=(0.0, 1.0), markers=True
                ),
                "Each block beside the teacher’s at the same share of its depth, before fine-tuning, on whole test "
                "clips. 1: alike up to rotation and scale; 0: unrelated. What all clips share at a place is taken off.",
            ),
            (
                f"What {METHOD_NAMES[method]} brings down",
                draw_line_chart(parts, x_label="step", y_label=axis, log_x=True),
                caption,
            ),
        ]
    )


def _make_block_points(values: Sequence[float]) -> list[ChartPoint]:
    return [(float(block), value) for block, value in enumerate(values, start=1)]


def draw_loss_charts(
    pretraining_logs: Mapping[str, Sequence[Mapping[str, Any]]], finetuning_logs: Mapping[str, Sequence[Any]]
) -> PageCharts:
    """The curves of both trainings, by model: the steps of their logs."""
    rebuilt = {key: extract_loss_curve(steps, "reconstruction") for key, steps in pretraining_logs.items()}
    pixels = [
        ChartLine(_SHORT_MODEL_NAMES[key], points, MODEL_COLORS[key]) for key, points in rebuilt.items() if points
    ]
    distilled = [
        f"{METHOD_NAMES[key]}’s curve is its pixel part." if points else f"{METHOD_NAMES[key]} rebuilds no pixels."
        for key, points in rebuilt.items()
        if key in METHOD_NAMES
    ]
    labels = [
        ChartLine(_SHORT_MODEL_NAMES[key], extract_loss_curve(steps), MODEL_COLORS[key])
        for key, steps in finetuning_logs.items()
    ]
    return PageCharts(
        [
            (
                "Pre-training: rebuilding hidden pixels",
                draw_line_chart(pixels, x_label="step", y_label="squared error", log_x=True),
                " ".join(["On hidden tubelets of the clips without labels.", *distilled]),
            ),
            (
                "Fine-tuning: naming the movement",
                draw_line_chart(labels, x_label="step", y_label="cross-entropy", log_x=True),
                "On the labelled training clips, with the recipe’s label smoothing.",
            ),
        ]
    )


def render_quickstart_page(
    result: QuickstartResult,
    *,
    reconstruction: PageImage,
    similarity_charts: PageCharts,
    loss_charts: PageCharts,
    facts: Sequence[tuple[str, str]],
) -> str:
    """The page."""
    rows = [format_result_row(each, result.num_test_clips) for each in result.models]
    colours = [MODEL_COLORS[each.key] for each in result.models]
    return render_page(
        kicker="vidstill quickstart",
        title="A teacher, its student, and what pre‑training was worth",
        lead=(
            f"On {result.num_pretrain_clips} drawn clips without labels, a VideoMAE teacher was pre-trained, and a smaller "
            f"student twice: by VideoMAE on pixels, and by {METHOD_NAMES[result.method]} from {describe_teachers(result)}. Then the "
            "same student was fine-tuned three times, from scratch and from both, and the teacher as well, all with "
            f"one recipe on {result.num_finetune_clips} labelled clips. The classes differ in motion only: no single frame gives "
            "them away."
        ),
        sections=[
            PageSection(
                "What came out",
                [
                    PageTable(_TABLE_HEADER, rows, colours, describe_results(result)),
                    PageText(describe_noise(result), "note"),
                ],
            ),
            PageSection("Side by side", [draw_top1_chart(result)]),
            PageSection("What the student sees, and what it makes of it", [reconstruction]),
            PageSection("How near the student comes to its teacher", [similarity_charts]),
            PageSection("How the losses went", [loss_charts]),
            PageSection("What was run", [PageFacts(facts)]),
        ],
        footer="Made by vidstill quickstart. Whatever came out is what is shown.",
    )
