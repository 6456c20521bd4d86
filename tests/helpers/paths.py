"""Where tests find the project, its real files and the reference cases."""

import os
from pathlib import Path

PROJECT = Path(__file__).parents[2]
SCRIPTS = PROJECT / "scripts"
DATA = Path(os.environ.get("VIDSTILL_DATA", PROJECT.parent / "shared" / "data"))
REFERENCE = Path(os.environ.get("VIDSTILL_REFERENCE", PROJECT.parent / "shared" / "reference"))
COMMITTED = PROJECT / "tests" / "parity"
