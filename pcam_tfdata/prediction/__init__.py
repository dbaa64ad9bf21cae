"""From a trained network and patches to a submission CSV of `id,label`.

A run folder and a records folder, or Kaggle's folder, come in; a CSV goes out.
Patches flow once through: batches, logits, a part on disk for each shard, rows.
"""
