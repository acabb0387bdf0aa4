"""Scaled cosine attention of Swin V2, as a change of queries and keys before the attention."""

import math

import torch
from torch import Tensor

# The largest factor on a cosine is 100.
# Source: Liu et al., Swin Transformer V2, 2022, section 3.2: the temperature is at least 0.01.
MAX_LOGIT_SCALE = math.log(100)
MIN_NORM = 1e-12  # as in torch.nn.functional.normalize


def scale_to_cosine(qkv: Tensor, logit_scale: Tensor) -> Tensor:
    """Brings keys to length 1 and queries to `exp(logit_scale)`, so that products are cosines.

    `softmax(q kᵀ + bias) v` of the result is then scaled cosine attention. `qkv` is `(..., 3*C)`,
    each with heads outermost; of `logit_scale` `(nH,)` at most `MAX_LOGIT_SCALE` counts. Lengths
    and factors are computed in float32 at least; values stay as they are.

    Source:
        Liu et al., Swin Transformer V2, 2022, equation 2.
    """
    heads = qkv.unflatten(-1, (3, len(logit_scale), -1))  # (..., 3, nH, D)
    precise = heads[..., :2, :, :].to(torch.promote_types(qkv.dtype, torch.float32))
    lengths = torch.linalg.vector_norm(precise, dim=-1).clamp_min(MIN_NORM)  # (..., 2, nH)
    scale = logit_scale.to(lengths.dtype).clamp(max=MAX_LOGIT_SCALE).exp()
    query_length, key_length = lengths.unbind(-2)  # (..., nH)
    factors = [scale / query_length, 1 / key_length, torch.ones_like(key_length)]
    scales = torch.stack(factors, dim=-2).unsqueeze(-1)  # (..., 3, nH, 1)
    return (heads * scales).to(qkv.dtype).flatten(-3)
