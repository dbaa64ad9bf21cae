"""Names that options take. Here, so that reading flags needs no TensorFlow."""

MODELS = (
    "seed_cnn", "small_cnn", "resnet_small", "p4m_cnn",
    "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2",
    "mobilenet_v3_small", "efficientnet_v2_b0", "densenet121", "convnext_tiny",
    "resnet50_v2",
)  # fmt: skip
HEADS = ("label", "fraction", "noisy_or")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")
AUGMENTATIONS = ("none", "d4", "stain", "strong")
TTA = ("none", "d4")
STRESSES = ("stain", "brightness", "blur", "jpeg")
GRADCAM, HIRESCAM, OCCLUSION = "gradcam", "hirescam", "occlusion"
EXPLANATIONS = (GRADCAM, HIRESCAM, OCCLUSION)
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
EXPORTS = ("saved_model", "onnx", "litert")
