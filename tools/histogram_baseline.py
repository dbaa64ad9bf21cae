"""Prints the AUC of a logistic regression on color histograms.

What a network must beat: fold0 scored by a model of fold1 .. fold4 that sees 16
bins of each channel over the whole patch, and by a constant.
"""

import numpy as np
from absl import app, flags
from sklearn import linear_model, metrics, pipeline, preprocessing

from pcam_tfdata.records import records_folder, tfrecord

_RECORDS_DIR = flags.DEFINE_string("records_dir", None, "Records folder.")
_NUM_BINS = 16


def main(_: list[str]) -> None:
    """Fits and prints."""
    records = records_folder.open_folder(_RECORDS_DIR.value)
    first, *others = [s.name for s in records.content.splits if s.labeled]
    model = pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        linear_model.LogisticRegression(max_iter=2000),
    )
    model.fit(*_read_shards(records.list_shards(others)))
    histograms, labels = _read_shards(records.list_shards([first]))
    auc = metrics.roc_auc_score(labels, model.decision_function(histograms))
    constant = metrics.roc_auc_score(labels, np.zeros(len(labels)))
    print(
        f"{first}: color histogram AUC {auc:.4f}, constant AUC {constant:.4f}"
    )


def _read_shards(
    shards: list[records_folder.ShardFile],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns histograms [num_patches, 48] and labels [num_patches]."""
    histograms, labels = [], []
    for shard in shards:
        mapped = shard.map()
        labels.append(mapped[:, shard.layout.label_offset])
        for image in tfrecord.view_images(mapped, shard.layout):
            bins = image.reshape(-1, 3) // (256 // _NUM_BINS)
            counts = [np.bincount(c, minlength=_NUM_BINS) for c in bins.T]
            histograms.append(np.concatenate(counts))
    return np.array(histograms), np.concatenate(labels)


if __name__ == "__main__":
    flags.mark_flag_as_required("records_dir")
    app.run(main)
