"""Timings of conversion, input, training and prediction, beside their limits.

A records folder or Kaggle's folder comes in; a table and a JSON file go out. A
benchmark is a list of contenders, small functions that do a piece of work at a
time; one harness times them in turn, each in a process of its own.
"""
