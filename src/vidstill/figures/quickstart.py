"""The quickstart's results as a table for the terminal and as the sections of its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from typing import NamedTuple, get_args

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from vidstill.figures import page
from vidstill.figures.charts import (
    ChartLine,
    LineStyle,
    Log,
    ModelScore,
    draw_line_chart,
    draw_score_chart,
    extract_loss_curve,
)


class ModelLabel(NamedTuple):
    name: str
    short_name: str  # of a distillation: the method, as its paper writes it
    color: str  # in the table and in every chart


MODELS = {
    "scratch": ModelLabel("Student, scratch", "scratch", "#8b857d"),
    "videomae": ModelLabel("Student, VideoMAE", "VideoMAE", "#2f6fb0"),
    "amd": ModelLabel("Student, AMD", "AMD", "#c4501b"),
    "mvd": ModelLabel("Student, MVD", "MVD", "#c4501b"),
    "maskagain": ModelLabel("Student, MaskAgain", "MaskAgain", "#c4501b"),
    "dmae": ModelLabel("Student, DMAE", "DMAE", "#c4501b"),
    "teacher": ModelLabel("Teacher, VideoMAE", "teacher", "#26231f"),
    "image_teacher": ModelLabel("Image teacher, MAE", "image teacher", "#26231f"),
}

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
        "Between normalized features of both models’ last blocks, at the tokens visible to both.",
    ),
}
"""A distillation's loss terms besides pixels: their names by log key, the axis, and a caption."""

_COLUMNS = {  # of the table on the page: on a terminal of 80 columns
    "model": "model",
    "frozen probe, %": "frozen\nprobe, %",
    "few labels, %": "few\nlabels, %",
    "many labels, %": "many\nlabels, %",
    "parameters, M": "params,\nM",
    "GFLOPs per view": "GFLOPs\na view",
    "pre-training, s": "pre-\ntrain s",
}

_NORMAL_QUANTILE = 1.96  # of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """A model's tests, and its cost."""

    key: str  # of MODELS
    probe_top1: float  # of a linear probe of the frozen encoder, percent
    top1: Mapping[str, float]  # after fine-tuning with few and with many labels, percent; the teacher has none
    num_params: int  # of the classifier
    flops: int  # of one view, in multiply-adds
    pretraining_seconds: float  # 0: it was not pre-trained here; without those of its teacher
    finetuning_seconds: float  # of both


@dataclass(frozen=True, kw_only=True)
class QuickstartResult:
    """The comparison."""

    models: tuple[ModelResult, ...]
    method: str  # of LOSS_PARTS
    num_classes: int
    num_labelled: Mapping[str, int]  # labelled training clips: few, many
    num_pretrain_clips: int  # unlabelled clips
    num_test_clips: int
    source: str  # of the clips
    image_teacher_seconds: float = 0.0  # of its pre-training, if the method has one

    @property
    def random_top1(self) -> float:
        """Top-1 of guessing, in percent."""
        return 100 / self.num_classes

    def compute_margin(self, top1: float) -> float:
        """Return half of the 95 % interval of a top-1, in percent: binomial, after Agresti and Coull (1998).

        Half as many right and wrong clips as the quantile's square are added: else 25 of 25 would be certain.
        """
        num_added = _NORMAL_QUANTILE**2
        num_clips = self.num_test_clips + num_added
        top1 = (top1 * self.num_test_clips + 50 * num_added) / num_clips
        return _NORMAL_QUANTILE * sqrt(top1 * (100 - top1) / num_clips)

    def format_rows(self) -> list[tuple[str, ...]]:
        """Return the table: a row per model, in the columns of `_COLUMNS`."""
        return [
            (
                MODELS[model.key].name,
                *(
                    "–" if top1 is None else f"{top1:.1f} ±{self.compute_margin(top1):.1f}"
                    for top1 in (model.probe_top1, model.top1.get("few"), model.top1.get("many"))
                ),
                f"{model.num_params / 1e6:.3g}",
                f"{model.flops / 1e9:.3g}",
                f"{model.pretraining_seconds:.0f}" if model.pretraining_seconds else "–",
            )
            for model in self.models
        ]


def make_terminal_table(result: QuickstartResult) -> Group:
    """Return the table for a terminal of 80 columns, with its explanation."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, name in enumerate(_COLUMNS.values()):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in result.format_rows():
        table.add_row(*map(escape, row))
    return Group(table, Text(describe_results(result) + "\n"), Text(describe_noise(result) + "\n"))


def describe_results(result: QuickstartResult) -> str:
    """Explain the numbers."""
    few, many = result.num_labelled["few"], result.num_labelled["many"]
    name = MODELS[result.method].short_name
    teacher = next(each for each in result.models if each.key == "teacher")
    seconds = {"teacher": teacher.pretraining_seconds, "image teacher": result.image_teacher_seconds}
    teachers = "" if seconds["teacher"] else " Its teacher comes with vidstill."
    teachers += "".join(f" Its {each}’s pre-training took {took:.0f} s." for each, took in seconds.items() if took)
    return (
        f"Top-1 on {result.num_test_clips} clips of {result.num_classes} classes (chance is {result.random_top1:.1f} "
        f"%), ± half of the 95 % interval that the choice of test clips alone gives. Frozen: a linear probe of the "
        f"encoder with {many} labels, from scratch of random weights; few and many: fine-tuned with {few} and {many}. "
        f"{name}’s student met as many clips as VideoMAE’s.{teachers}"
    )


def describe_noise(result: QuickstartResult) -> str:
    """Explain what one seed can show."""
    by_key = {model.key: model for model in result.models}
    distilled, pixels = by_key[result.method], by_key["videomae"]
    gain = distilled.probe_top1 - pixels.probe_top1
    noise = hypot(*map(result.compute_margin, (distilled.probe_top1, pixels.probe_top1)))
    verdict = "more than" if abs(gain) > noise else "within"
    return (
        f"Frozen, the distilled student is {gain:+.1f} points from the one pre-trained on pixels: {verdict} the "
        f"{noise:.1f} points that the choice of test clips explains. It is one seed: docs/quickstart.md has five."
    )


def draw_similarity_charts(similarity: Mapping[str, Sequence[float]], method: str, distillation_log: Log) -> str:
    """Draw the similarity of the students' layers to the teacher's, and the distillation losses.

    Args:
        similarity: Linear CKA of each block with the teacher's matching block, by student.
        method: The student's distillation method.
        distillation_log: The steps of its pre-training.
    """
    _, method_name, color = MODELS[method]
    lines = [
        _make_line(
            key,
            [(float(block), value) for block, value in enumerate(values, 1)],
            "dashed" if key == "scratch" else "solid",
        )
        for key, values in similarity.items()
    ]
    names, y_label, caption = LOSS_PARTS[method]
    parts = [
        ChartLine(name, extract_loss_curve(distillation_log, part), color, style)
        for (part, name), style in zip(names.items(), get_args(LineStyle), strict=False)
    ]
    return page.render_charts(
        (
            "Similarity to the teacher, layer by layer",
            draw_line_chart(lines, "student’s block", "linear CKA", log_x=False, y_range=(0.0, 1.0)),
            "Each block against the teacher’s at the same relative depth, before fine-tuning, on unmasked test clips. "
            "1: equal up to rotation and scale; 0: unrelated. The mean over clips is subtracted at each position.",
        ),
        (f"Distillation losses of {method_name}", draw_line_chart(parts, "step", y_label), caption),
    )


def draw_loss_charts(pretraining_logs: Mapping[str, Log], finetuning_logs: Mapping[str, Log]) -> str:
    """Draw each model's loss curves of pre-training and fine-tuning."""
    curves = {key: extract_loss_curve(steps, "reconstruction") for key, steps in pretraining_logs.items()}
    caption = "On masked tubelets of the unlabelled clips. Methods that normalize pixels otherwise have other errors."
    for key in curves.keys() & LOSS_PARTS:
        phrase = ": the pixel term of its loss." if curves[key] else " has no pixel loss."
        caption += f" {MODELS[key].short_name}{phrase}"
    pixels = [_make_line(key, points) for key, points in curves.items()]
    labels = [_make_line(key, extract_loss_curve(steps)) for key, steps in finetuning_logs.items()]
    return page.render_charts(
        ("Pre-training: reconstruction of masked pixels", draw_line_chart(pixels, "step", "squared error"), caption),
        (
            "Fine-tuning with few labels",
            draw_line_chart(labels, "step", "cross-entropy"),
            "On the labelled training clips, with label smoothing.",
        ),
    )


def _make_line(key: str, points: Sequence[tuple[float, float]], style: LineStyle = "solid") -> ChartLine:
    return ChartLine(MODELS[key].short_name, points, MODELS[key].color, style)


def render_quickstart_page(
    result: QuickstartResult, *, reconstruction: str, similarity_charts: str, loss_charts: str, facts: Mapping[str, str]
) -> str:
    """Return the HTML report.

    Args:
        reconstruction, similarity_charts, loss_charts: HTML of these sections.
        facts: The settings, by name.
    """
    labels = {"few": "Few labels", "many": "Many labels"}
    charts = [
        (
            f"{title}: top-1 on the test clips",
            draw_score_chart(
                [
                    ModelScore(
                        MODELS[each.key].short_name, top1, result.compute_margin(top1 or 0.0), each.probe_top1, color
                    )
                    for each, top1, color in (
                        (each, each.top1.get(name), MODELS[each.key].color) for each in result.models
                    )
                ],
                result.random_top1,
                "top-1, %",
            ),
            f"Dot: fine-tuned with {result.num_labelled[name]} labels, and its 95 % interval. Ring: linear probe of "
            "the frozen encoder, all that is measured of the teacher.",
        )
        for name, title in labels.items()
    ]
    colors = [MODELS[each.key].color for each in result.models]
    table = page.render_table(list(_COLUMNS), result.format_rows(), colors, describe_results(result))
    return page.render_page(
        kicker="vidstill quickstart",
        title="What distillation is for",
        lead=(
            f"One small student, three times: from scratch; pre-trained by VideoMAE on the pixels of "
            f"{result.num_pretrain_clips} unlabelled clips; and distilled by {MODELS[result.method].short_name} from "
            "a teacher on the same clips for the same number of steps. Each is probed frozen, and fine-tuned with few "
            "and with many labels by one recipe."
        ),
        sections={
            "Results": table + page.render_note(describe_noise(result)),
            "Comparison": page.render_charts(*charts),
            "Reconstruction of test clips": reconstruction,
            "Similarity to the teacher": similarity_charts,
            "Losses": loss_charts,
            "Settings": page.render_facts(facts),
        },
        footer="Made by vidstill quickstart. The numbers are shown as they came out.",
    )
