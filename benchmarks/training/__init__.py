"""Train real tasks with INNA's family and its peers: see docs/training.md."""
