"""Summary-Newton, in the core and on every host."""
