"""Exact scores of a trained network on labelled patches.

A run folder and a records folder come in; numbers with intervals, a page of text,
predictions and pictures go out as files.
"""
