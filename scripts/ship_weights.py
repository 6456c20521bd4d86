"""Make the weights that come with the package from a finished run: its encoder in half precision.

python scripts/ship_weights.py RUN src/vidstill/assets/quickstart-teacher.safetensors
"""

import argparse
from pathlib import Path

from vidstill.checkpoints.io import read_checkpoint, write_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a run directory")
    parser.add_argument("out", type=Path, help="the file")
    args = parser.parse_args()
    checkpoint = read_checkpoint(args.run)
    tensors = {name: each.half() for name, each in checkpoint.tensors.items() if name.startswith("encoder.")}
    write_checkpoint(args.out, tensors, {**checkpoint.metadata, "licence": "Apache-2.0"})
    print(f"{args.out}: {len(tensors)} tensors, {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
