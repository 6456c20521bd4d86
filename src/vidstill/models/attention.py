"""Softmax attention by the kernel that is fastest for the device, the precision and the number of tokens."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

AttentionKernel = Literal["fused", "plain", "by_head"]
"""torch's own kernel; batched matrix products around a softmax; or two-dimensional products, head after head."""

# The kernel up to a number of tokens; the other devices and precisions take torch's own. `vidstill bench attention`
# measures them: forward and backward on an AMD EPYC with AVX512-BF16, docs/performance.md, "Attention".
_FASTEST_KERNELS: dict[tuple[str, torch.dtype], tuple[tuple[float, AttentionKernel], ...]] = {
    ("cpu", torch.bfloat16): ((512, "plain"), (math.inf, "by_head")),
}


class AttentionMap(NamedTuple):
    """Attention logits and values of one block."""

    logits: Float[Tensor, "b heads n n"]  # scaled, before the softmax
    values: Float[Tensor, "b heads n d_head"]


def choose_kernel(device_type: str, dtype: torch.dtype, num_tokens: int) -> AttentionKernel:
    """Return the fastest kernel of those that were measured."""
    kernels = _FASTEST_KERNELS.get((device_type, dtype), ((math.inf, "fused"),))
    return next(kernel for limit, kernel in kernels if num_tokens <= limit)


def compute_attention(
    queries: Float[Tensor, "b heads n d"], keys: Float[Tensor, "b heads n d"], values: Float[Tensor, "b heads n d_head"]
) -> Float[Tensor, "b heads n d_head"]:
    """Return softmax attention, by the kernel that suits the device; the only function that selects one.

    Args:
        queries: Scaled by the root of their length.
        keys: As long as the queries.
        values: May have another length.
    """
    return KERNELS[choose_kernel(queries.device.type, queries.dtype, queries.shape[-2])](queries, keys, values)


def compute_attention_logits(
    queries: Float[Tensor, "b heads n d_head"], keys: Float[Tensor, "b heads n d_head"]
) -> Float[Tensor, "b heads n n"]:
    """Return scaled products of queries and keys; the queries are scaled first, as in the released codes."""
    return (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return compute_attention_logits(queries, keys).softmax(dim=-1) @ values


@torch.library.custom_op("vidstill::attend_by_head", mutates_args=())
def _attend_by_head(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of one head after the other, whose weights fit a CPU's cache and are computed again for the gradient.

    oneDNN multiplies bf16 matrices at the processor's full speed, and batches of them at a part of it. Nothing of size
    n × n is kept: with P = softmax(Q Kᵀ), dV = Pᵀ dO, dS = P ∘ (dO Vᵀ - rowsum), dQ = dS K, dK = dSᵀ Q.

    It is an operator of torch's, so that compiled code calls it as it is instead of unrolling its loops.
    """
    output = _empty_heads(values)
    for q, k, v, out in zip(*map(_iter_heads, (_scale(queries), keys, values, output)), strict=True):
        torch.mm(_compute_weights(q, k), v, out=out)
    return output


@torch.library.custom_op("vidstill::attend_by_head_backward", mutates_args=())
def _compute_gradients(
    queries: Tensor, keys: Tensor, values: Tensor, grad_output: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = (_scale(queries), keys, values, grad_output)
    outputs = grad_queries, grad_keys, grad_values = _empty_heads(queries), _empty_heads(keys), _empty_heads(values)
    for q, k, v, grad, grad_q, grad_k, grad_v in zip(*map(_iter_heads, (*inputs, *outputs)), strict=True):
        weights = _compute_weights(q, k)
        torch.mm(weights.T, grad, out=grad_v)
        grad_logits = torch._softmax_backward_data(grad @ v.T, weights, -1, weights.dtype)
        torch.mm(grad_logits, k, out=grad_q)
        torch.mm(grad_logits.T, q, out=grad_k)
    return grad_queries.mul_(queries.shape[-1] ** -0.5), grad_keys, grad_values


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _compute_gradients(*ctx.saved_tensors, grad_output)


_attend_by_head.register_autograd(_backward, setup_context=_save_inputs)
_attend_by_head.register_fake(lambda queries, keys, values: _empty_heads(values))
_compute_gradients.register_fake(lambda *tensors: tuple(map(_empty_heads, tensors[:3])))


def _scale(queries: Float[Tensor, "b heads n d"]) -> Float[Tensor, "b heads n d"]:
    return queries * queries.shape[-1] ** -0.5


def _compute_weights(queries: Float[Tensor, "n d"], keys: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    logits = queries @ keys.T
    return torch.softmax(logits, dim=-1, out=logits)


def _empty_heads(tensor: Float[Tensor, "b heads n d"]) -> Float[Tensor, "b heads n d"]:
    """Return memory for a tensor of heads, in which the heads of a token stand side by side."""
    return torch.empty_like(tensor.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


def _iter_heads(tensor: Float[Tensor, "b heads n d"]) -> Iterator[Float[Tensor, "n d"]]:
    return (head for heads in tensor.unbind(0) for head in heads.unbind(0))


KERNELS: Mapping[AttentionKernel, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "fused": F.scaled_dot_product_attention,
    "plain": _attend,
    "by_head": _attend_by_head,
}
"""Functions of queries, keys and values by head, (b, heads, n, d)."""
