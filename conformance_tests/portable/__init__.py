"""Portable states: files, faults, and runs handed over between frameworks."""
