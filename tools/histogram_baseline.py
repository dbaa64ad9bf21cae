"""Prints the AUC of a logistic regression on color histograms.

What a network must beat: fold0 scored by a model of fold1 .. fold4 that sees 16
bins of each channel over the whole patch, and by a constant.
"""

import os

import numpy as np
from absl import app, flags
from sklearn import linear_model, metrics, pipeline, preprocessing

from pcam_tfdata.records import manifest, records_folder, tfrecord

_RECORDS_DIR = flags.DEFINE_string("records_dir", None, "Records folder.")
_NUM_BINS = 16


def main(_: list[str]) -> None:
    """Fits and prints."""
    content = records_folder.open_folder(_RECORDS_DIR.value).content
    names = [split.name for split in content.splits if split.labeled]
    train = [_read_split(split) for split in content.select(names[1:])]
    histograms, labels = map(np.concatenate, zip(*train, strict=True))
    model = pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        linear_model.LogisticRegression(max_iter=2000),
    )
    model.fit(histograms, labels)
    histograms, labels = _read_split(content.select(names[:1])[0])
    scores = model.decision_function(histograms)
    constant = np.zeros(len(labels))
    print(
        f"{names[0]}: color histogram AUC"
        f" {metrics.roc_auc_score(labels, scores):.4f}, constant AUC"
        f" {metrics.roc_auc_score(labels, constant):.4f}"
    )


def _read_split(split: manifest.Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns histograms [num_patches, 48] and labels [num_patches]."""
    histograms, labels = [], []
    for shard in split.shards:
        path = os.path.join(_RECORDS_DIR.value, shard.name)
        mapped = tfrecord.map_shard(path, shard.num_records, split.layout)
        labels.append(mapped[:, split.layout.label_offset])
        for image in tfrecord.view_images(mapped, split.layout):
            bins = image.reshape(-1, 3) // (256 // _NUM_BINS)
            counts = [np.bincount(c, minlength=_NUM_BINS) for c in bins.T]
            histograms.append(np.concatenate(counts))
    return np.array(histograms), np.concatenate(labels)


if __name__ == "__main__":
    flags.mark_flag_as_required("records_dir")
    app.run(main)
