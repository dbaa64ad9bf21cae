"""Devices, precision, and workers that train together."""
