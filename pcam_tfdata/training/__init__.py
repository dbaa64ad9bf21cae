"""The training loop: batches and a network in, a run folder out."""
