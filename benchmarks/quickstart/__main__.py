"""Entry point: says what to install before anything is imported that may be missing."""

import sys
from importlib.util import find_spec

NEEDS = {"numpy": "numpy", "sklearn": "scikit-learn", "matplotlib": "matplotlib", "rich": "rich"}

absent = [project for package, project in NEEDS.items() if find_spec(package) is None]
if absent:
    print(f"The quickstart needs {', '.join(absent)}: python -m pip install {' '.join(absent)}", file=sys.stderr)
    sys.exit(2)

from benchmarks.quickstart.command import main  # noqa: E402

sys.exit(main())
