"""What all tests share: one thread, and no deadline for an example of a property."""

import torch
from hypothesis import settings

torch.set_num_threads(1)  # sums do not depend on the machine's cores then
settings.register_profile("vidstill", deadline=None)  # a first call imports and compiles; its time says nothing
settings.load_profile("vidstill")
