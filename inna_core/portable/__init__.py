"""Optimizer state in one file, which every host can save and load: torch, optax, Keras, plain arrays.

Use `save_state` and `load_state` of `inna_torch`, `inna_optax` and `inna_keras`; for plain arrays `save` and `load` of
this package. It needs NumPy and safetensors: the extra ``portable``.

The file is a safetensors file. Its tensors are named

    <name of the parameter>/<slot>          velocity, second_moment, compensation
    <name of the parameter>/parameter       where parameters are saved too

and its metadata, strings by name, are

| key               | value                                                                                       |
|-------------------|---------------------------------------------------------------------------------------------|
| format, version   | "inna-state", "1"                                                                           |
| framework         | whose names and layouts the tensors have: "torch", "optax", "keras", "arrays"               |
| algorithm         | "INNA", "INNAprop"                                                                          |
| step              | number of steps made, "null" where the host did not count                                   |
| steps             | JSON: by name of the parameter, its number of steps where that differs from `step`          |
| hyperparameters   | JSON: by name of the parameter, its hyperparameters by name                                 |
| complex           | JSON: tensors that are complex, stored with real and imaginary parts along a last dimension |
| sha256            | of the whole file, with 64 zeros in place of this value                                     |

safetensors has no checksum of its own. By `sha256`, `load` detects a change of any byte and refuses the file. Nothing
in a file is ever executed. `save` writes atomically.
"""

from inna_core.portable.file import load, save
from inna_core.portable.fitting import fitted
from inna_core.portable.layouts import LAYOUTS, mapping_of_layers
from inna_core.portable.state import PortableState

__all__ = ["LAYOUTS", "PortableState", "fitted", "load", "mapping_of_layers", "save"]
