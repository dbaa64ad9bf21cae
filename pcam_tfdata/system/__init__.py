"""Files, locks, worker processes, progress and signals: nothing about pathology.

What every other room stands on. It imports nothing of the package but `schema`.
"""
