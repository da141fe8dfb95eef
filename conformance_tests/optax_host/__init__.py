"""What optax and JAX users do with `inna_optax`."""
