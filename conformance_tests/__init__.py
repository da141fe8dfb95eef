"""Shows that every host follows the trajectory of the papers."""
