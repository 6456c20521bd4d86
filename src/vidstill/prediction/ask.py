"""`vidstill.predict`: asks a fine-tuned model about videos, and gives all that it answers at once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vidstill.data.sources import Place
from vidstill.encoders.encoder import Encoder, load
from vidstill.prediction.answers import OverTime, Predictions, overall, timed_predictions
from vidstill.prediction.videos import WhichSplit, find_videos


def predict(
    source: str | Path | Encoder,
    videos: Place | Sequence[Place],
    *,
    over_time: OverTime | None = None,
    split: WhichSplit = "all",
    root: Place | None = None,
    workers: int = 0,
) -> Predictions:
    """What videos show, in the order of their names; what cannot be asked about is in `left_out`, with the reason.

    Args:
        source: a run's folder, a file of weights, or an encoder that is loaded already; fine-tuned.
        videos: files, folders, lists, packs, or pictures for a model of images; one or several.
        over_time: how to look at them over time as well; None: on the whole only.
        split: of a data set that has splits.
        root: the folder that a list's paths start from; None: the list's own.
        workers: processes that decode.

    Raises:
        InputError: the model has no classes, or not one video can be asked about.
    """
    encoder = source if isinstance(source, Encoder) else load(str(source))
    places = [videos] if isinstance(videos, str | Path) else videos
    found = find_videos(places, split=split, root=root, frames=encoder.fine_tuned()[1].sampling.frames)
    answers = overall(encoder, found, workers=workers)
    if over_time is None:
        return answers
    shares = encoder.runtime.gathered(list(timed_predictions(encoder, answers, over_time)))
    seen = sorted((each for share in shares for each in share), key=lambda each: each.video)
    return replace(answers, videos=tuple(seen))
