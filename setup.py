"""Packaging, for tools that look for this file; pyproject.toml says all."""

import setuptools

setuptools.setup()
