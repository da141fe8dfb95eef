"""What Keras users do with `inna_keras`."""
