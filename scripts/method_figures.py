"""Draws docs/methods/*.svg: one figure a method, from one description each; run it from anywhere, without arguments.

The masks are drawn by the methods' own configurations, on a clip of 4 slots of 20 places or an image of 4 × 10 patches.
"""

from pathlib import Path

from figure import IMAGE, Figure, Teacher, Term, drawn

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
    lines=("of the hidden tokens, from", "the clip itself; squared error"),
    through=("decoder",),
    where="hidden",
)

FIGURES = {
    "imagemae": Figure(
        title="ImageMAE",
        sentence="Three patches in four of an image are hidden; their pixels are rebuilt.",
        mask=ImageMAEConfig().mask,
        grid=IMAGE,
        label="the student sees 1 patch in 4",
        terms=(
            Term(
                name="pixels",
                lines=("of the hidden patches, from", "the image itself; squared error"),
                through=("decoder",),
                where="hidden",
            ),
        ),
    ),
    "videomae": Figure(
        title="VideoMAE",
        sentence="The same nine places in ten are hidden in every slot of time; their pixels are rebuilt.",
        mask=VideoMAEConfig().mask,
        terms=(_PIXELS,),
    ),
    "stmae": Figure(
        title="ST-MAE",
        sentence="Nine tokens in ten are hidden, anywhere in space and time; their pixels are rebuilt.",
        mask=STMAEConfig().mask,
        seed=5,
        terms=(
            Term(
                name="pixels",
                lines=("of one frame in two, at the", "hidden tokens; squared error"),
                through=("decoder",),
                where="hidden",
            ),
        ),
    ),
    "mvd": Figure(
        title="MVD",
        sentence="No pixels: what two frozen teachers make of the hidden tokens is rebuilt.",
        mask=MVDConfig().mask,
        terms=(
            Term(
                name="video features",
                lines=("of the video teacher, at the", "hidden tokens; smooth L1"),
                through=("decoder",),
                where="hidden",
                teacher=1,
            ),
            Term(
                name="image features",
                lines=("of the image teacher, at the", "hidden tokens; smooth L1"),
                through=("decoder",),
                where="hidden",
                teacher=0,
            ),
        ),
        teachers=(
            Teacher(
                name=("image teacher", "frozen"),
                sees="all",
                label="sees every second frame, alone",
                gives="its last block's features",
            ),
            Teacher(
                name=("video teacher", "frozen"),
                sees="all",
                label="sees the whole clip",
                gives="its last block's features",
            ),
        ),
    ),
    "amd": Figure(
        title="AMD",
        sentence="The teacher sees more than the student, which has to give the teacher's features there too.",
        mask=AMDConfig().mask,
        terms=(
            _PIXELS,
            Term(
                name="direct",
                lines=("features at what both see,", "two blocks; squared error"),
                through=("linear",),
                where="seen",
                teacher=0,
            ),
            Term(
                name="generation",
                lines=("features at what the teacher", "alone sees; squared error"),
                through=("linear, then", "generator"),
                where="extra",
                teacher=0,
            ),
        ),
        teachers=(
            Teacher(
                name=("larger teacher", "frozen"),
                sees="more",
                label="the teacher sees more: 1 in 4",
                gives="features of its middle and its last block",
            ),
        ),
    ),
    "maskagain": Figure(
        title="MaskAgain",
        sentence="Of the tokens that both see, the student follows the teacher at the most telling ones. No decoder.",
        mask=MaskAgainConfig().mask,
        terms=(
            Term(
                name="MAGlobal",
                lines=("what each query takes from", "them; squared error"),
                through=("10 most attended", "keys"),
                where=(1, 4, 7),
                teacher=0,
            ),
            Term(
                name="MALocal",
                lines=("the same in each slot of", "time; squared error"),
                through=("10 most attended", "keys of each slot"),
                where=(1, 2, 4, 7),
                teacher=0,
            ),
            Term(
                name="MAHint",
                lines=("their features, as they are;", "squared error"),
                through=("10 most active", "in the teacher"),
                where=(0, 3, 5),
                teacher=0,
            ),
            Term(
                name="MARel",
                lines=("how alike they are, over the", "batch; KL divergence"),
                through=("the same tokens,", "two by two"),
                where=(0, 3, 5),
                teacher=0,
            ),
        ),
        teachers=(
            Teacher(
                name=("teacher", "frozen"),
                sees="same",
                label="the teacher sees the same",
                gives="attention and output of its last block",
            ),
        ),
    ),
    "dmae": Figure(
        title="DMAE",
        sentence="Student and teacher see the same patches; one block of each is aligned while pixels are rebuilt.",
        mask=DMAEConfig().mask,
        grid=IMAGE,
        label="the student sees 1 patch in 4",
        terms=(
            Term(
                name="pixels",
                lines=("of the hidden patches, from", "the image itself; squared error"),
                through=("decoder",),
                where="hidden",
            ),
            Term(
                name="alignment",
                lines=("features of block 9 with 18's,", "at length 1; absolute error"),
                through=("linear",),
                where="seen",
                teacher=0,
            ),
        ),
        teachers=(
            Teacher(
                name=("larger teacher", "frozen"),
                sees="same",
                label="the teacher sees the same",
                gives="features of its block 18 of 24",
            ),
        ),
    ),
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, figure in FIGURES.items():
        (FOLDER / f"{name}.svg").write_text(drawn(figure))
