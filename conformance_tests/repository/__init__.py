"""Imports, and the examples of README and docstrings."""
