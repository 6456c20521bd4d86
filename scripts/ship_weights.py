"""Make weights that come with the package from a finished run: its encoder in half precision, and its log in short.

python scripts/ship_weights.py RUN src/vidstill/assets/quickstart-teacher.safetensors
"""

import argparse
from pathlib import Path
from statistics import fmean

from vidstill.checkpoints.io import read_checkpoint, write_checkpoint
from vidstill.figures.charts import read_log
from vidstill.utils.files import write_bytes

NUM_LOG_ROWS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("out", type=Path, help="the file; the log is written beside it as .csv")
    args = parser.parse_args()
    checkpoint, log = read_checkpoint(args.run), read_log(args.run)
    tensors = {name: each.half() for name, each in checkpoint.tensors.items() if name.startswith("encoder.")}
    write_checkpoint(args.out, tensors, {**checkpoint.metadata, "licence": "Apache-2.0"})
    interval = max(1, len(log) // NUM_LOG_ROWS)
    lines = ["step,learning rate,mean loss since the row before"]
    for end in range(interval, len(log) + 1, interval):
        steps = log[end - interval : end]
        lines.append(f"{steps[-1]['step']},{steps[-1]['lr']:.3g},{fmean(each['loss'] for each in steps):.4f}")
    write_bytes(args.out.with_suffix(".csv"), "".join(f"{line}\n" for line in lines).encode())
    print(f"{args.out}: {len(tensors)} tensors, {args.out.stat().st_size / 1e6:.2f} MB, after {len(log)} steps")


if __name__ == "__main__":
    main()
