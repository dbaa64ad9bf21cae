"""Names that options take. Here, so that reading flags needs no TensorFlow."""

MODELS = ("seed_cnn", "small_cnn")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")
AUGMENTATIONS = ("none", "d4")
TTA = ("none", "d4")
XLA = ("auto", "on", "off")
ON_NAN = ("stop", "skip")
INPUTS = ("auto", "mmap", "stream", "device")
CRC_CHECKS = ("first_epoch", "never")
CACHES = ("none", "memory", "file")
STRATEGIES = ("one_device", "mirrored")
TRAIN_STRATEGIES = (*STRATEGIES, "multi_worker")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
BENCHMARKS = (
    "convert", "data_service", "input", "loop", "predict", "start", "training",
)  # fmt: skip
RUNNERS = ("local", "beam")
SOURCES = ("kaggle", "hdf5", "folder", "tfds")
