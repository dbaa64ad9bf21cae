"""Scores of a trained network on labelled patches, as numbers, text and plots."""
