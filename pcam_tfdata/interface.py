"""The Python interface: `import pcam_tfdata as pcam`.

Each function makes the library call that a command makes. Keywords are the flags of
the command: a run that was begun here goes on under `pcam train`, and the other way
round. Nothing is imported before it is needed, and nothing is set that outlives a
call: no signal handler, logging, warnings or plots. Progress goes to Python's logging.

>>> records = pcam.convert("kaggle", "records", slide_csv="kaggle/slides.csv")
>>> run = pcam.train(
...     records, run_dir="run", model="small_cnn", batch_size=16, epochs=2
... )
>>> scores = run.evaluate(num_resamples=0)
>>> 0 <= scores["auc"] <= 1
True
>>> run.predict(records, split="test").shape
(7,)
"""

import os
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np

from pcam_tfdata import keywords
from pcam_tfdata.records import records_folder, tfrecord
from pcam_tfdata.runs import run_folder

if typing.TYPE_CHECKING:  # They take a second or more.
    import keras
    import pandas
    import tensorflow as tf

Path = str | os.PathLike[str]
_OF_BATCHES = (
    "train_splits", "validation_splits", "input", "input_threads", "check_crc",
    "shuffle_megabytes",
)  # fmt: skip
_OF_PREDICTION: tuple[str, ...] = (
    "batch_size", "tta", "calibrated", "input", "input_threads", "strategy",
    "num_virtual_devices", "allow_cpu",
)  # fmt: skip


class Records:
    """A records folder, as `open_records` and `convert` give it.

    Attributes:
        path: The folder.
    """

    def __init__(self, folder: records_folder.RecordsFolder) -> None:
        self._folder, self.path = folder, folder.path

    def __repr__(self) -> str:
        return f"<Records {self.path}: {', '.join(self.splits)}>"

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits.

        >>> records.splits
        ('fold0', 'fold1', 'fold2', 'fold3', 'fold4', 'test')
        """
        return tuple(split.name for split in self._folder.content.splits)

    @property
    def counts(self) -> dict[str, dict[int, int]]:
        """Patches of each label by split; -1 is for patches without one.

        >>> records.counts["test"]
        {-1: 7}
        """
        return {
            split.name: {int(k): n for k, n in split.class_counts.items()}
            for split in self._folder.content.splits
        }

    def read_table(self) -> "pandas.DataFrame":
        """Returns a row for each patch: split, id, label, slide, source_name."""
        columns = ["split", "id", "label", "slide", "source_name"]
        table = self._folder.read_sidecar(columns)[columns]
        return table.astype({"label": int})

    def images(self, split: str) -> np.ndarray:
        """Returns patches in their order: uint8 [num_patches, 96, 96, 3], read-only.

        Of a split that is one shard it is a view of the file, mapped into memory.
        Several shards are copied into one array, of 27,648 bytes a patch.

        A FileNotFoundError or ValueError tells of shards that are missing or damaged.

        >>> images = records.images("test")
        >>> images.shape, images.dtype
        ((7, 96, 96, 3), dtype('uint8'))
        """
        selection = self._folder.select_patches([split])
        if len(selection.shards) == 1:
            shard = selection.shards[0]
            views = tfrecord.view_images(shard.map(), shard.layout)
            return views.view(np.ndarray)
        images = selection.read_images(np.arange(selection.num_patches))
        images.flags.writeable = False
        return images

    def train_batches(
        self, *, batch_size: int, seed: int = 0, epochs: int = 1, **options: Any
    ) -> "tf.data.Dataset":
        """Returns the batches of the steps of `train`, in its order.

        A batch is a dict of `image`, uint8 [batch_size, 96, 96, 3], `label` and
        `row` (of `read_table`), int64 [batch_size]. All are whole: they go on from
        one epoch to the next, and the last one beyond the end.

        Args:
            batch_size: Patches of a batch.
            seed: Decides the order.
            epochs: Times that each patch comes, each time in another order.
            options: `train_splits`, `validation_splits`, and how to read: `input`
                (but `device`), `input_threads`, `check_crc`, `shuffle_megabytes`.

        >>> batches = records.train_batches(batch_size=16, seed=1)
        >>> pairs = batches.map(lambda batch: (batch["image"], batch["label"]))
        >>> pairs.element_spec[0].shape
        TensorShape([16, 96, 96, 3])
        """
        from pcam_tfdata.pipeline import input_choice, patch_source
        from pcam_tfdata.training import configuration

        given = {"batch_size": batch_size, "seed": seed, "epochs": epochs}
        built = keywords.build(
            "Records.train_batches",
            configuration.TrainOptions,
            given | options,
            only=(*given, *_OF_BATCHES),
            records_dir=self.path,
            run_dir="",
        )
        settled = configuration.settle_splits(built, self._folder)
        if settled.input.input == "device":
            raise ValueError("input='device': expected mmap or stream.")
        splits, reading = settled.train_splits, settled.input
        source = patch_source.Source(self._folder, splits, reading)
        patches = input_choice.open_patches(source)
        return patches.train_batches(
            batch_size=batch_size,
            seed=seed,
            first_step=0,
            num_steps=settled.last_step(epochs, patches.num_patches),
        )


class Run:
    """A run folder, as `train` and `load_run` give it.

    Attributes:
        run_dir: The folder. Plain Keras opens its `best.keras`.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = os.fspath(run_dir)

    def __repr__(self) -> str:
        return f"<Run {self.run_dir}>"

    @property
    def history(self) -> "pandas.DataFrame":
        """Scores of each epoch, on what it trained on and on validation splits.

        >>> run.history.epoch.tolist()
        [1]
        """
        import pandas

        path = os.path.join(self.run_dir, run_folder.HISTORY)
        return pandas.read_csv(path)

    def evaluate(
        self, records: Records | Path | None = None, **options: Any
    ) -> dict[str, Any]:
        """Scores the best network exactly, and returns what `metrics.json` has.

        Args:
            records: None for those that the run was trained on.
            options: Flags of `pcam evaluate`, as `splits`, `tta`, `threshold`.

        >>> run.evaluate(num_resamples=0, tta="d4")["splits"]
        ['fold0']
        """
        from pcam_tfdata.evaluation import configuration, evaluate

        if records is None:
            records = run_folder.read_flags(self.run_dir).get("records_dir", "")
        built = keywords.build(
            "Run.evaluate",
            configuration.EvaluateOptions,
            options,
            records_dir=_find_path(records),
            run_dir=self.run_dir,
            worker_wait_seconds=0.0,  # It has no workers to wait for.
        )
        return evaluate.evaluate(built)

    def predict(
        self, patches: Records | np.ndarray, **options: Any
    ) -> np.ndarray:
        """Returns the probability of tumor in the centre: float64 [num_patches].

        Args:
            patches: uint8 [num_patches, 96, 96, 3]; or records, of which `split`
                (default: `test`) is predicted.
            options: Flags of `pcam predict`, as `tta`, `batch_size`, `calibrated`
                (default: where the run is).

        >>> run.predict(records.images("test"), tta="d4").dtype
        dtype('float64')
        """
        from pcam_tfdata.prediction import configuration, predict

        names, path, images = _OF_PREDICTION, "", None
        if isinstance(patches, Records):
            names, path = (*names, "split"), patches.path
        else:
            images = np.asarray(patches)
        built = keywords.build(
            "Run.predict",
            configuration.PredictOptions,
            options,
            only=names,
            run_dir=self.run_dir,
            output_csv="",
            records_dir=path,
        )
        return predict.predict_array(built, images)


def convert(
    input_dir: Path, output_dir: Path, *, source: str = "kaggle", **options: Any
) -> Records:
    """Writes patches as a records folder, each checked, and opens it.

    Finished records are opened as they are where their options, and names, labels
    and slides in the source, are the same; not those of `hdf5` and `tfds`. Others
    are a FileExistsError.

    Args:
        input_dir: Folder of the source.
        output_dir: The records folder; what a killed call finished there is used.
        source: One of `choices.SOURCES`.
        options: Flags of `pcam convert_to_tfrecords`, as `slide_csv`, `overwrite`.
    """
    from pcam_tfdata.conversion import convert, finished
    from pcam_tfdata.records import manifest

    folders = {"input_dir": input_dir, "output_dir": output_dir}
    given = folders | {"source": source} | options
    built = keywords.build(
        "pcam.convert", convert.ConvertOptions, given, unpacked_dir=""
    )
    is_there = manifest.is_records_folder(built.output_dir)
    if is_there and not built.overwrite:
        records = open_records(built.output_dir)
        if finished.is_made_of(records._folder, built):
            return records
    convert.convert(built)
    return open_records(built.output_dir)


def open_records(records_dir: Path) -> Records:
    """Opens a records folder; a FileNotFoundError or ValueError if it is none."""
    return Records(records_folder.open_folder(_find_path(records_dir)))


def train(
    records: Records | Path,
    *,
    run_dir: Path,
    callbacks: "Sequence[keras.callbacks.Callback]" = (),
    **options: Any,
) -> Run:
    """Trains a network, goes on with an unfinished run, or opens a finished one.

    Ctrl-C ends it after a checkpoint; the same call goes on from there. Options that
    are unknown, or do not fit, are a TypeError or a ValueError.

    Args:
        records: What to train and validate on.
        run_dir: Folder of the run.
        callbacks: Those of Keras, see `training.train.train`.
        options: Flags of `pcam train`, as `model`, `epochs`, `restart`.
    """
    from pcam_tfdata.training import configuration, train

    built = keywords.build(
        "pcam.train",
        configuration.TrainOptions,
        {"run_dir": run_dir, **options},
        records_dir=_find_path(records),
    )
    train.train(built, callbacks)
    return Run(built.run_dir)


def load_run(run_dir: Path) -> Run:
    """Opens a run folder; a FileNotFoundError if no network was trained there."""
    run = Run(_find_path(run_dir))
    run_folder.find_model(run.run_dir)
    return run


def _find_path(value: Records | Path) -> str:
    if isinstance(value, Records):
        return value.path
    return os.path.expanduser(os.fspath(value))
