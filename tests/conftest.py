"""What all tests share: one thread, no gradients left over, the folder of real files."""

import torch

torch.set_num_threads(1)  # sums do not depend on the machine's cores then
