"""What torch users do with `inna_torch`."""
