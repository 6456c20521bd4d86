"""Draw docs/methods/*.svg, one figure per method; takes no arguments.

The masks come from the methods' own configurations, on a clip of 4 time slots of 20 positions or an image of 4 × 10
patches.
"""

from pathlib import Path

from figure import IMAGE, Figure, Teacher, Term, draw_figure

from vidstill.methods.amd import AMDConfig
from vidstill.methods.dmae import DMAEConfig
from vidstill.methods.imagemae import ImageMAEConfig
from vidstill.methods.maskagain import MaskAgainConfig
from vidstill.methods.mvd import MVDConfig
from vidstill.methods.stmae import STMAEConfig
from vidstill.methods.videomae import VideoMAEConfig

FOLDER = Path(__file__).parents[1] / "docs" / "methods"

_PIXELS = Term(
    name="pixels",
    lines=("of the masked tokens, from", "the clip itself; squared error"),
    through=("decoder",),
    where="masked",
)

FIGURES = {
    "imagemae": Figure(
        title="ImageMAE",
        sentence="Three patches in four of an image are masked; their pixels are reconstructed.",
        mask=ImageMAEConfig().mask,
        grid=IMAGE,
        label="the student sees 1 patch in 4",
        terms=(
            Term(
                name="pixels",
                lines=("of the masked patches, from", "the image itself; squared error"),
                through=("decoder",),
                where="masked",
            ),
        ),
    ),
    "videomae": Figure(
        title="VideoMAE",
        sentence="The same nine positions in ten are masked in every time slot; their pixels are reconstructed.",
        mask=VideoMAEConfig().mask,
        terms=(_PIXELS,),
    ),
    "stmae": Figure(
        title="ST-MAE",
        sentence="Nine tokens in ten are masked, anywhere in space and time; their pixels are reconstructed.",
        mask=STMAEConfig().mask,
        seed=5,
        terms=(
            Term(
                name="pixels",
                lines=("of one frame in two, at the", "hidden tokens; squared error"),
                through=("decoder",),
                where="masked",
            ),
        ),
    ),
    "mvd": Figure(
        title="MVD",
        sentence="No pixels: the student predicts two frozen teachers' features of the masked tokens.",
        mask=MVDConfig().mask,
        terms=(
            Term(
                name="video features",
                lines=("of the video teacher, at the", "masked tokens; smooth L1"),
                through=("decoder",),
                where="masked",
                teacher=1,
            ),
            Term(
                name="image features",
                lines=("of the image teacher, at the", "masked tokens; smooth L1"),
                through=("decoder",),
                where="masked",
                teacher=0,
            ),
        ),
        teachers=(
            Teacher(
                name=("image teacher", "frozen"),
                sees="all",
                label="sees every second frame, alone",
                output="its last block's features",
            ),
            Teacher(
                name=("video teacher", "frozen"),
                sees="all",
                label="sees the whole clip",
                output="its last block's features",
            ),
        ),
    ),
    "amd": Figure(
        title="AMD",
        sentence="The teacher sees more tokens than the student, which also predicts the teacher's features there.",
        mask=AMDConfig().mask,
        terms=(
            _PIXELS,
            Term(
                name="direct",
                lines=("features of tokens that both", "see, 2 blocks; squared error"),
                through=("linear",),
                where="visible",
                teacher=0,
            ),
            Term(
                name="generation",
                lines=("features of tokens that only the", "teacher sees; squared error"),
                through=("linear, then", "generator"),
                where="teacher_only",
                teacher=0,
            ),
        ),
        teachers=(
            Teacher(
                name=("larger teacher", "frozen"),
                sees="more",
                label="the teacher sees more: 1 in 4",
                output="features of its middle and last block",
            ),
        ),
    ),
    "maskagain": Figure(
        title="MaskAgain",
        sentence="Of the tokens that both see, the student imitates the teacher at the most salient ones. No decoder.",
        mask=MaskAgainConfig().mask,
        terms=(
            Term(
                name="MAGlobal",
                lines=("what each query attends to", "there; squared error"),
                through=("10 most attended", "keys"),
                where=(1, 4, 7),
                teacher=0,
            ),
            Term(
                name="MALocal",
                lines=("the same within each time", "slot; squared error"),
                through=("10 most attended", "keys of each slot"),
                where=(1, 2, 4, 7),
                teacher=0,
            ),
            Term(
                name="MAHint",
                lines=("their features;", "squared error"),
                through=("10 most active", "in the teacher"),
                where=(0, 3, 5),
                teacher=0,
            ),
            Term(
                name="MARel",
                lines=("their similarities over a", "group; KL divergence"),
                through=("the same tokens,", "pairwise"),
                where=(0, 3, 5),
                teacher=0,
            ),
        ),
        teachers=(
            Teacher(
                name=("teacher", "frozen"),
                sees="same",
                label="the teacher sees the same",
                output="attention and output of its last block",
            ),
        ),
    ),
    "dmae": Figure(
        title="DMAE",
        sentence="Student and teacher see the same patches; one block each is aligned; pixels are reconstructed.",
        mask=DMAEConfig().mask,
        grid=IMAGE,
        label="the student sees 1 patch in 4",
        terms=(
            Term(
                name="pixels",
                lines=("of the masked patches, from", "the image itself; squared error"),
                through=("decoder",),
                where="masked",
            ),
            Term(
                name="alignment",
                lines=("features of block 9 with 18's,", "L2-normalized; absolute error"),
                through=("linear",),
                where="visible",
                teacher=0,
            ),
        ),
        teachers=(
            Teacher(
                name=("larger teacher", "frozen"),
                sees="same",
                label="the teacher sees the same",
                output="features of its block 18 of 24",
            ),
        ),
    ),
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, figure in FIGURES.items():
        (FOLDER / f"{name}.svg").write_text(draw_figure(figure))
