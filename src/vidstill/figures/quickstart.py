"""The quickstart's results as a table for the terminal and as the sections of its report."""

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
"""The distillation methods of the quickstart, as their papers write them."""

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
"""The color of each model, in the table and in every chart."""

_SHORT_MODEL_NAMES = {"scratch": "scratch", "videomae": "VideoMAE", **METHOD_NAMES, "teacher": "teacher"}

LOSS_PARTS = {
    "amd": (
        {"direct": "direct", "generation": "generated"},
        "squared distance to the teacher’s features",
        "Direct: at the tokens visible to both. Generated: at the tokens visible to the teacher only.",
    ),
    "mvd": (
        {"image": "image teacher", "video": "video teacher"},
        "smooth distance to a teacher’s features",
        "At the masked tokens: the image teacher’s features of a frame, and the video teacher’s of the clip.",
    ),
    "maskagain": (
        {"hint": "hint", "global": "global", "local": "local", "relation": "relation"},
        "distance to the teacher",
        "At the tokens visible to both: the most salient tokens, the attention over the whole clip and over each time "
        "step, and the relations between tokens of different clips.",
    ),
    "dmae": (
        {"alignment": "alignment"},
        "distance to the teacher’s features",
        "Between normalized features at three quarters of both models’ depth, at the tokens visible to both.",
    ),
}
"""A distillation's loss terms besides pixels: their names by log key, the axis, and a caption."""

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
    """A fine-tuned model, and its cost."""

    key: str  # of MODEL_NAMES
    name: str
    top1: float  # percent
    top5: float
    probe_top1: float  # top-1 of the linear probe before fine-tuning, percent
    num_params: int  # of the classifier
    flops: int  # of one view, in multiply-adds
    pretraining_seconds: float  # 0: from scratch; without those of its teacher
    finetuning_seconds: float


@dataclass(frozen=True, kw_only=True)
class QuickstartResult:
    models: tuple[ModelResult, ...]
    method: str  # of METHOD_NAMES
    num_classes: int
    num_finetune_clips: int  # labelled training clips
    num_pretrain_clips: int  # unlabelled clips
    num_test_clips: int  # test clips
    seed: int
    image_teacher_seconds: float = 0.0  # of its pre-training, if the method has one

    @property
    def chance_top1(self) -> float:
        """Top-1 of guessing, in percent."""
        return 100 / self.num_classes


def compute_standard_error(percent: float, num_videos: int) -> float:
    """Return the binomial standard error of an accuracy in percent."""
    return sqrt(percent * (100 - percent) / num_videos)


def format_result_row(model: ModelResult, num_videos: int) -> tuple[str, ...]:
    """Return a model's row of the table, in the columns of `_TABLE_HEADER`."""
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
    """Return the table for a terminal of 80 columns, with its explanation."""
    table = Terminal(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, name in enumerate(_NARROW_TABLE_HEADER):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for model in result.models:
        table.add_row(*map(escape, format_result_row(model, result.num_test_clips)))
    return Group(table, Words(describe_results(result) + "\n"), Words(describe_noise(result) + "\n"))


def describe_results(result: QuickstartResult) -> str:
    """Explain the numbers."""
    teacher = next(each for each in result.models if each.key == "teacher")
    seconds = [f"{each:.0f} s" for each in (teacher.pretraining_seconds, result.image_teacher_seconds) if each]
    return (
        f"Top-1 on {result.num_test_clips} clips of {result.num_classes} classes (chance is {result.chance_top1:.1f} "
        "%), ± one binomial "
        "standard error. The linear probe uses the encoder before fine-tuning; from scratch, one with random weights. "
        f"{METHOD_NAMES[result.method]}’s student also needed {describe_teachers(result)}, whose pre-training took "
        f"{' and '.join(seconds)}."
    )


def describe_teachers(result: QuickstartResult) -> str:
    """Name the teachers of the distilled student."""
    return "the teacher and an image teacher" if result.image_teacher_seconds else "the teacher"


def describe_noise(result: QuickstartResult) -> str:
    """Explain what an experiment of this size can show."""
    noise = 2 * sqrt(2) * max(compute_standard_error(each.top1, result.num_test_clips) for each in result.models)
    return (
        "At this size the experiment shows that the pipeline works and what each stage costs, not which method is "
        f"better: it is one seed, the choice of test clips alone can set two of these numbers {noise:.0f} points "
        "apart, and "
        "tiny models trained for minutes on synthetic clips say little about large ones trained for days on real video."
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
    caption = "Dot: fine-tuned, ± one standard error. Ring: linear probe of the frozen encoder."
    return PageCharts([("Top-1 on the test clips", chart, caption)])


def draw_similarity_charts(
    similarity: Mapping[str, Sequence[float]], method: str, distillation_log: Sequence[Mapping[str, Any]]
) -> PageCharts:
    """Draw the similarity of the students' layers to the teacher's, and the distillation losses.

    Args:
        similarity: Linear CKA of each block with the teacher's matching block, by student.
        method: The student's distillation method.
        distillation_log: The steps of its pre-training.
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
                "Similarity to the teacher, layer by layer",
                draw_line_chart(
                    lines, x_label="student’s block", y_label="linear CKA", y_range=(0.0, 1.0), markers=True
                ),
                "Each block against the teacher’s at the same relative depth, before fine-tuning, on unmasked test "
                "clips. "
                "1: equal up to rotation and scale; 0: unrelated. The mean over clips is subtracted at each position.",
            ),
            (
                f"Distillation losses of {METHOD_NAMES[method]}",
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
    """Draw the loss curves of pre-training and fine-tuning, from the logged steps of each model."""
    reconstruction = {key: extract_loss_curve(steps, "reconstruction") for key, steps in pretraining_logs.items()}
    pixels = [
        ChartLine(_SHORT_MODEL_NAMES[key], points, MODEL_COLORS[key])
        for key, points in reconstruction.items()
        if points
    ]
    distilled = [
        f"{METHOD_NAMES[key]}: the pixel term of its loss." if points else f"{METHOD_NAMES[key]} has no pixel loss."
        for key, points in reconstruction.items()
        if key in METHOD_NAMES
    ]
    labels = [
        ChartLine(_SHORT_MODEL_NAMES[key], extract_loss_curve(steps), MODEL_COLORS[key])
        for key, steps in finetuning_logs.items()
    ]
    return PageCharts(
        [
            (
                "Pre-training: reconstruction of masked pixels",
                draw_line_chart(pixels, x_label="step", y_label="squared error", log_x=True),
                " ".join(["On masked tubelets of the unlabelled clips.", *distilled]),
            ),
            (
                "Fine-tuning: classification of the motion",
                draw_line_chart(labels, x_label="step", y_label="cross-entropy", log_x=True),
                "On the labelled training clips, with label smoothing.",
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
    """Return the HTML report."""
    rows = [format_result_row(each, result.num_test_clips) for each in result.models]
    colours = [MODEL_COLORS[each.key] for each in result.models]
    return render_page(
        kicker="vidstill quickstart",
        title="A teacher, its student, and the value of pre‑training",
        lead=(
            f"On {result.num_pretrain_clips} unlabelled synthetic clips, a VideoMAE teacher was pre-trained, and a "
            "smaller student "
            f"twice: by VideoMAE on pixels, and by {METHOD_NAMES[result.method]} from {describe_teachers(result)}. The "
            "student was "
            "then fine-tuned three times, from scratch and from both, and so was the teacher, all with one recipe on "
            f"{result.num_finetune_clips} labelled clips. The classes differ only in motion: no single frame shows the "
            "class."
        ),
        sections=[
            PageSection(
                "Results",
                [
                    PageTable(_TABLE_HEADER, rows, colours, describe_results(result)),
                    PageText(describe_noise(result), "note"),
                ],
            ),
            PageSection("Comparison", [draw_top1_chart(result)]),
            PageSection("Reconstruction of test clips", [reconstruction]),
            PageSection("Similarity to the teacher", [similarity_charts]),
            PageSection("Losses", [loss_charts]),
            PageSection("Settings", [PageFacts(facts)]),
        ],
        footer="Made by vidstill quickstart. The numbers are shown as they came out.",
    )
