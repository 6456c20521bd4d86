"""Kernels, casts and synchronizations of calls of which they are known."""

import pytest
import torch
from tiny_models import VIDEOMAE
from torch import nn

from vidstill.bench.counts import count_step


def test_a_linear_layer_is_one_product_forward_and_two_backward():
    layer, x = nn.Linear(4, 3, bias=False), torch.rand(2, 4, requires_grad=True)
    with count_step() as counts:
        y = layer(x)
    assert (counts.kernel_names, counts.kernels) == ({"mm": 1}, 1)
    with count_step() as counts:
        y.backward(torch.ones(2, 3))
    assert counts.kernel_names["mm"] == 2


def test_views_and_allocations_are_no_kernels():
    x = torch.rand(2, 4)
    with count_step() as counts:
        torch.empty(3)
        x.view(4, 2).transpose(0, 1)[0].detach().unbind(0)
    assert counts.kernels == counts.casts == counts.synchronizations == 0


def test_casts_are_copies_into_another_precision_and_a_call_for_many_tensors_counts_once():
    x = torch.rand(3)
    pair, copies = [torch.rand(2), torch.rand(3)], [torch.empty(n, dtype=torch.bfloat16) for n in (2, 3)]
    with count_step() as counts:
        x.bfloat16()
        x.float()  # nothing to do
        x.clone()
        torch.empty(3, dtype=torch.bfloat16).copy_(x)
        torch.empty(3).copy_(x)
        torch._foreach_copy_(copies, pair)
        torch._foreach_copy_([torch.empty(2)], pair[:1])
    assert counts.casts == 3


def test_autocast_casts_are_counted():
    layer, x = nn.Linear(4, 3), torch.rand(2, 4)
    with count_step() as counts, torch.autocast("cpu", torch.bfloat16):
        layer(x)
    assert counts.casts == 3  # input, weight, bias


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x[0].item(),
        lambda x: float(x[0]),
        lambda x: bool(x[0]),
        lambda x: x.tolist(),
        lambda x: x[0].tolist(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        lambda x: x[x > 0.5],
        lambda x: x.nonzero(),
    ],
)
def test_each_read_by_the_host_is_one_synchronization(read):
    x = torch.rand(3)
    original = torch.Tensor.tolist
    with count_step() as counts:
        read(x)
    assert counts.synchronizations == 1
    assert torch.Tensor.tolist is original


def test_the_methods_are_restored_after_an_error():
    original = torch.Tensor.item
    with pytest.raises(ZeroDivisionError), count_step():
        raise ZeroDivisionError
    assert torch.Tensor.item is original


def test_forward_and_backward_of_a_method_do_not_make_the_host_wait():
    task = VIDEOMAE.build()
    clip, seed = torch.rand(2, 3, 4, 16, 12), torch.tensor([1, 2])
    with count_step() as counts:
        task(clip, None, seed).loss.backward()
    assert counts.synchronizations == 0
    assert counts.kernels > 50
