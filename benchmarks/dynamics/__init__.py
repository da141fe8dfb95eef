"""Pictures of the dynamics: `python -m benchmarks dynamics` draws all figures of docs/dynamics.md, one module each."""
