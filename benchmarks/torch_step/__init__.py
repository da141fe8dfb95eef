"""Time and extra memory of one step of the torch optimizers, against torch's own.

`layouts` holds the shapes of the parameters, `optimizers` the optimizers, `rows` which of them are compared and the
targets, `timing` the measurements, `against` the comparison with another checkout of this repository.
"""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # keeps torch's profiler from reporting each use on stderr
