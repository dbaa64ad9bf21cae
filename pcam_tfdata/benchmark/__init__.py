"""Timings: of conversion, input, training and prediction, beside limits."""
