"""Train real tasks with INNA's family and its peers, each tuned with the same budget: see docs/training.md and docs/training_short_runs.md."""
