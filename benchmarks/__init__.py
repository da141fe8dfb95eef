"""What the optimizers do and cost on real problems; part of the checkout, not of the installed package."""
