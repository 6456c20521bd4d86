"""Every attention kernel computes the same function and gradients."""

import pytest
import torch
import torch.nn.functional as F

from vidstill.models.attention import KERNELS, choose_kernel, compute_attention

every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def draw_heads(dtype=torch.float32, *, tokens=50, value_width=16):
    """Queries, keys and values as a layer projects them: the heads of a token stand side by side."""
    generator = torch.Generator().manual_seed(0)
    widths = (16, 16, value_width)
    return [torch.randn(2, tokens, 3, d, generator=generator).to(dtype).transpose(1, 2) for d in widths]


def attend_in_double(queries, keys, values):
    logits = queries.double() @ keys.double().mT / queries.shape[-1] ** 0.5
    return logits.softmax(dim=-1) @ values.double()


@every_kernel
@pytest.mark.parametrize("value_width", [16, 8])
def test_a_kernel_is_softmax_attention(kernel, value_width):
    heads = draw_heads(value_width=value_width)
    torch.testing.assert_close(KERNELS[kernel](*heads).double(), attend_in_double(*heads), rtol=1e-5, atol=1e-5)


@every_kernel
def test_a_kernels_gradients_are_those_of_softmax_attention(kernel):
    heads, exact = (
        [each.to(dtype).requires_grad_() for each in draw_heads()] for dtype in (torch.float32, torch.double)
    )
    weight = torch.linspace(-1, 1, 16)
    (KERNELS[kernel](*heads) * weight).sum().backward()
    (attend_in_double(*exact) * weight.double()).sum().backward()
    for each, expected in zip(heads, exact, strict=True):
        torch.testing.assert_close(each.grad.double(), expected.grad, rtol=1e-4, atol=1e-5)


@every_kernel
def test_a_kernel_in_bfloat16_is_the_function_up_to_rounding(kernel):
    heads = draw_heads(torch.bfloat16)
    # bfloat16 has 8 bits; the values are about 1, their average is no larger
    torch.testing.assert_close(KERNELS[kernel](*heads).double(), attend_in_double(*heads), rtol=0, atol=4 * 2.0**-8)


def test_large_logits_overflow_in_no_kernel():
    queries, keys, values = draw_heads()
    for kernel in KERNELS.values():
        assert kernel(300 * queries, 300 * keys, values).isfinite().all()


def test_head_after_head_keeps_nothing_of_the_square_of_the_length_for_the_gradient():
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: sizes.append(each.numel()) or each, lambda each: each):
        KERNELS["by_head"](*[each.requires_grad_() for each in draw_heads(tokens=64)])
    assert max(sizes) == 2 * 3 * 64 * 16


@pytest.mark.parametrize("tokens", [8, 512, 513, 1568])
def test_a_length_and_precision_have_one_kernel(tokens):
    assert choose_kernel("cpu", torch.float32, tokens) == choose_kernel("cuda", torch.bfloat16, tokens) == "fused"
    assert choose_kernel("cpu", torch.bfloat16, tokens) == ("plain" if tokens <= 512 else "by_head")


def test_attention_takes_the_chosen_kernel():
    heads = draw_heads(torch.bfloat16, tokens=513)
    assert torch.equal(compute_attention(*heads), KERNELS["by_head"](*heads))
    assert torch.equal(compute_attention(*draw_heads()), F.scaled_dot_product_attention(*draw_heads()))
