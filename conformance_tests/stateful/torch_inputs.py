"""What is drawn for the torch optimizers."""

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

shapes = st.sampled_from([(), (1,), (0,), (5,), (3, 4), (2, 3, 2), (2, 0, 3)])
dtypes = st.sampled_from(["float64", "float64", "float32", "bfloat16", "float16"])
layouts = st.sampled_from(["dense", "transposed", "strided"])
parameter = st.tuples(shapes, dtypes, layouts)
seeds = st.integers(0, 2**16)
ALL_DAMPINGS = {"alpha": None, "beta": None, "momentum": None, "lead": None}
rates = st.sampled_from([0.0, 1e-3, 0.05, 0.1, 0.3, 0.9, 1.2])
decays = st.sampled_from([0.0, 0.0, 0.1])
flags = st.sampled_from([{"foreach": None}, {"foreach": False}, {"foreach": True}])


def tensor(shape: tuple[int, ...], dtype: str, layout: str, seed: int) -> Any:
    """Return a tensor of random numbers in some layout in memory."""
    values = torch.from_numpy(np.asarray(np.random.default_rng(seed).standard_normal(shape)))
    values = values.to(getattr(torch, dtype))
    if layout == "transposed":
        return values.mT.contiguous().mT if values.ndim >= 2 else values
    if layout == "strided" and values.ndim:
        return torch.stack([values, values], dim=-1)[..., 0]
    return values


def as_float64(x: Any) -> np.ndarray:
    return x.detach().double().numpy().copy()
