"""Runs the notebooks of a profile: ``python -m tkmia_utils.pipeline``."""
