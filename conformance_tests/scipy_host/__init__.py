"""INNA as a method of `scipy.optimize.minimize`."""
