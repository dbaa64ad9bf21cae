"""Names in Kaggle's folder. Here, so that whoever asks for them imports no more."""

TRAIN, TEST = "train", "test"
LABELS_FILE = "train_labels.csv"
SAMPLE_FILE = "sample_submission.csv"
