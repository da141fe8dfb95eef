"""Random orders of operations on optimizers, against a plain model of what they should do."""
