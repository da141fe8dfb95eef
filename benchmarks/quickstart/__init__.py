"""One small network, trained with INNA on every installed host: ``python -m benchmarks.quickstart``.

A run goes through these files: `problem` makes data, initial weights and batches once; `rows` lists the hosts;
`processes` starts `worker` in a fresh process per host, which calls the host's own training loop in `hosts`; `bounds`
judges the trajectories; `picture` draws them; `__main__` is the command line around all that.
"""
