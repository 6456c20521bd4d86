"""Measure the time and memory of AVA's frame mAP on a full-size result, beside a plain loop.

    python scripts/ava_scoring.py [--frames 57000] [--detections 1500000] [--rounds 3] [--part 25]

Makes up key frames with annotated boxes of 60 actions, and detections of which half are near one of them: as a file of
rows with one action each ("rows"), and as boxes with a score for each of the 60 actions ("boxes"). Both are scored by
vidstill and by a Python loop over key frames, actions and detections, in turns; each measurement is a process. The loop
scores all rows, but only the boxes of one key frame in `part`, and its time is multiplied by that. Prints one line of
JSON for each form: the medians of the seconds of scoring and of reading the files before, their quotients, and the peak
memory in MB (Linux's VmHWM), torch's libraries included.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

ACTIONS = 60
SECONDS = 897  # key frames of a video
ANNOTATED = 6  # rows of a key frame
MATCHING = "score_order_top50"

Box = Sequence[float]
Row = tuple[str, int, Box, int, float]
"""Video, second, box, action, score."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=57_000)
    parser.add_argument("--detections", type=int, default=1_500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", type=int, default=25, help="the loop scores the boxes of one key frame in so many")
    parser.add_argument("--measure", nargs=3, help="a folder, rows or boxes, vidstill or plain: in this process")
    args = parser.parse_args()
    if args.measure:
        folder, form, whose = args.measure
        measure = {"vidstill": measure_vidstill, "plain": measure_loop}[whose]
        print(json.dumps(measure(Path(folder), form, args.part)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), args.frames, args.detections)
        for form in ("rows", "boxes"):
            results = {"vidstill": [], "plain": []}
            for _ in range(args.rounds):
                for whose, each in results.items():
                    command = [sys.executable, __file__, "--part", str(args.part), "--measure", folder, form, whose]
                    each.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
            print(json.dumps({"form": form, **summarize(results)}), flush=True)


def summarize(results: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    def times(key: str) -> dict[str, float]:
        own, plain = (statistics.median(each[key] for each in results[whose]) for whose in ("vidstill", "plain"))
        return {key: round(own, 2), f"plain_{key}": round(plain, 1), f"{key}_of_plain": round(own / plain, 4)}

    return {
        **times("scoring"),
        **(times("reading") if "reading" in results["vidstill"][0] else {}),
        "peak_mb": max(each["peak_mb"] for each in results["vidstill"]),
        "mean": results["vidstill"][0]["mean"],
        "plain_mean": results["plain"][0]["mean"],
    }


def make(folder: Path, frames: int, detections: int) -> None:
    """Write `annotated.csv`, `detected.csv`, and `boxes.npz`."""
    from vidstill.data.ava.box_table import BoxTable, format_box_csv
    from vidstill.utils.files import write_bytes

    rng = np.random.default_rng(0)
    frame = np.repeat(np.arange(frames, dtype=np.int32), ANNOTATED)
    names = tuple(f"video{number:06d}" for number in range(-(-frames // SECONDS)))
    action = rng.integers(1, ACTIONS + 1, len(frame)).astype(np.int32)
    box = boxes(rng, len(frame))

    def rows(frame: np.ndarray, box: np.ndarray, action: np.ndarray, score: np.ndarray) -> BoxTable:
        line = np.arange(len(frame), dtype=np.int32)
        return BoxTable(folder, names, frame // SECONDS, frame % SECONDS + 902, box.round(3), action, score, line)

    write_bytes(
        folder / "annotated.csv", format_box_csv(rows(frame, box, action, np.ones(len(frame))), decimals=(3, 0))
    )
    near = np.sort(rng.integers(0, len(frame), detections))
    hit = rng.random(detections) < 0.5
    detected = np.where(hit[:, None], box[near] + rng.normal(0, 0.02, (detections, 4)), boxes(rng, detections))
    its = np.where(hit, action[near], rng.integers(1, ACTIONS + 1, detections)).astype(np.int32)
    score = np.where(hit, rng.beta(3, 2, detections), rng.beta(1, 3, detections))
    write_bytes(
        folder / "detected.csv", format_box_csv(rows(frame[near], detected.clip(0, 1), its, score), decimals=(3, 6))
    )
    scores = rng.beta(1, 6, (detections, ACTIONS)).astype(np.float32)
    scores[np.arange(detections), its - 1] = score
    np.savez(folder / "boxes.npz", frame=frame[near], box=detected.clip(0, 1).round(3), scores=scores)


def boxes(rng: np.random.Generator, number: int) -> np.ndarray:
    corner = rng.random((number, 2)) * 0.6
    return np.concatenate([corner, corner + 0.1 + 0.3 * rng.random((number, 2))], axis=1)


def measure_vidstill(folder: Path, form: str, _: int) -> dict[str, float | None]:
    import torchvision.ops  # noqa: F401  # its import is no part of scoring

    from vidstill.data.ava.box_table import BoxScores, read_box_csv
    from vidstill.data.ava.label_map import LabelMap
    from vidstill.tasks.metrics.ava_map import compute_frame_map

    actions = LabelMap(
        {number: f"action {number}" for number in range(1, ACTIONS + 1)}, frozenset(range(1, ACTIONS + 1))
    )
    start = time.perf_counter()
    annotated = read_box_csv(folder / "annotated.csv", has_scores=False)
    if form == "rows":
        detected = read_box_csv(folder / "detected.csv", has_scores=True)
    else:
        arrays = np.load(folder / "boxes.npz")
        frame, box, scores = arrays["frame"], arrays["box"], arrays["scores"]
        second = frame % SECONDS + 902
        detected = BoxScores(annotated.video_names, frame // SECONDS, second, box, actions.action_ids, scores)
    read = time.perf_counter()
    result = compute_frame_map(annotated, detected, actions, matching=MATCHING)
    ended = time.perf_counter()
    reading = {"reading": read - start} if form == "rows" else {}
    return {"scoring": ended - read, **reading, "peak_mb": peak(), "mean": result.mean}


def measure_loop(folder: Path, form: str, part: int) -> dict[str, float | None]:
    start = time.perf_counter()
    annotated = plain_rows(folder / "annotated.csv")
    if form == "rows":
        part, detected = 1, plain_rows(folder / "detected.csv")
    else:
        arrays = np.load(folder / "boxes.npz")
        mine = arrays["frame"] % part == 0
        frame, box, scores = (
            arrays["frame"][mine].tolist(),
            arrays["box"][mine].tolist(),
            arrays["scores"][mine].tolist(),
        )
        order = {name: number for number, name in enumerate(dict.fromkeys(row[0] for row in annotated))}
        annotated = [row for row in annotated if (order[row[0]] * SECONDS + row[1] - 902) % part == 0]
        names = list(order)
        detected = [
            (names[at // SECONDS], at % SECONDS + 902, where, number, score)
            for at, where, each in zip(frame, box, scores, strict=True)
            for number, score in enumerate(each, 1)
        ]
    read = time.perf_counter()
    result = plain_frame_map(annotated, detected, range(1, ACTIONS + 1), matching=MATCHING)
    ended = time.perf_counter()
    precisions = [each for each in result.values() if each is not None]
    return {"scoring": part * (ended - read), "reading": read - start, "mean": sum(precisions) / len(precisions)}


def plain_rows(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return [(row[0], int(row[1]), [*map(float, row[2:6])], int(row[6]), float(row[7])) for row in csv.reader(file)]


def plain_frame_map(
    annotated: Iterable[Row],
    detected: Iterable[Row],
    actions: Iterable[int],
    *,
    excluded: Collection[tuple[str, int]] = (),
    matching: str,
    iou: float = 0.5,
) -> dict[int, float | None]:
    """Return each action's average precision, by a loop over key frames, actions and detections."""
    actions = list(actions)
    truth, detections = defaultdict(list), defaultdict(list)
    for rows, own in ((annotated, truth), (detected, detections)):
        for video, second, box, action, score in rows:
            if action in actions and (video, second) not in excluded:
                own[video, second].append((box, action, score))
    hits: dict[int, list[tuple[float, bool]]] = {action: [] for action in actions}
    for keyframe, rows in detections.items():
        if matching != "file_order":
            rows = sorted(rows, key=lambda row: -row[2])
        if matching == "score_order_top50":
            rows = rows[:50]
        for action in actions:
            boxes = [box for box, its, _ in truth.get(keyframe, ()) if its == action]
            is_matched = [False] * len(boxes)
            for box, its, score in rows:
                if its == action and box[0] < box[2] and box[1] < box[3]:
                    ious = [plain_iou(box, other) for other in boxes]
                    best = max(ious, default=0.0)
                    hit = bool(boxes) and best >= iou and not is_matched[ious.index(best)]
                    if hit:
                        is_matched[ious.index(best)] = True
                    hits[action].append((score, hit))
    annotated_boxes = dict.fromkeys(actions, 0)
    for rows in truth.values():
        for _, action, _ in rows:
            annotated_boxes[action] += 1
    return {action: plain_average_precision(hits[action], annotated_boxes[action]) for action in actions}


def plain_iou(one: Box, other: Box) -> float:
    wide, high = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    both = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return wide * high / (both - wide * high)


def plain_average_precision(hits: list[tuple[float, bool]], annotated: int) -> float | None:
    if not annotated:
        return None
    precisions, recalls, so_far = [], [], 0
    for number, (_, hit) in enumerate(sorted(hits, key=lambda each: -each[0]), 1):
        so_far += hit
        precisions.append(so_far / number)
        recalls.append(so_far / annotated)
    total, best = 0.0, 0.0
    for index in reversed(range(len(precisions))):
        best = max(best, precisions[index])
        total += best * (recalls[index] - (recalls[index - 1] if index else 0.0))
    return total


def peak() -> float:
    """Return the peak memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6, 1)


if __name__ == "__main__":
    main()
