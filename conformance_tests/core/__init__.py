"""`inna_core` alone, without any host."""
