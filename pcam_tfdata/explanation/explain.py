"""Explanations of a run's answers: pictures, and checks of what is behind them."""

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import pandas
from PIL import Image

from pcam_tfdata import choices, schema
from pcam_tfdata.distribution import replicas
from pcam_tfdata.evaluation import configuration, evaluate
from pcam_tfdata.explanation import checks, evidence
from pcam_tfdata.models import inference
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import (
    calibration_file,
    patch_examples,
    predictions_file,
    run_folder,
)
from pcam_tfdata.system import files, progress

_BATCH_SIZE, _NUM_EXAMPLES = 64, 24  # The latter of each kind.
_NUM_CHECKED, _NUM_OCCLUDED = 512, 64  # Patches behind the checks.
# A network of random weights may like nuclei by chance, the next dislike them.
_NUM_RANDOM = 5
_MAX_TUMOR = 0.25  # Share of a patch to point into: more is hit by chance.


@replicas.keras_settings()
def explain(
    options: configuration.EvaluateOptions,
    *,
    ids: Sequence[str] = (),
    method: str = choices.HIRESCAM,
    mask_dir: str = "",
) -> dict[str, Any]:
    """Draws where a run's best model finds tumor, and checks its maps.

    Writes `explanations.json` and a folder `explanations` of pictures, ROW.png,
    in the place of earlier ones, beside the scores of the splits.

    Args:
        options: Records, run and splits, as to score them.
        ids: Patches to draw, by id or name in the source; none for those of
            `patch_examples`.
        method: One of `choices.EXPLANATIONS`.
        mask_dir: Folder of ID.png, not 0 where tumor is; or empty.

    Returns:
        What `explanations.json` has. `center_share` is the mean share of evidence in
        the centre 32 x 32, by label, over `num_patches` patches at even distances in
        the splits; `random_` is that of networks with re-drawn weights (Adebayo et
        al. 2018), with whose maps `sanity_correlation` is the mean rank correlation.
        `pointing_game` is of those positive patches with less than a quarter of
        tumor: how often the maximum of a map, or the pixel in the middle, is tumor;
        `chance` is the share of tumor. What is not known is None.

    Raises:
        FileNotFoundError, ValueError: model, records, splits, predictions, ids or
            masks are not there.
    """
    subject = evaluate.open_subject(options)
    records, options = subject.records, subject.options
    names = ("model_sha256", "manifest_sha256", "splits")
    facts = {name: subject.facts[name] for name in names}
    table = records.read_sidecar(["split", "id", "source_name", "label"])
    table = table[table["split"].isin(options.splits)]
    drawn = _find_ids(table, ids) if ids else _choose_examples(options, facts)
    parts = records.content.select(options.splits)
    color = np.mean([p.channel_mean for p in parts], axis=0).astype(np.uint8)
    model = inference.load_network(run_folder.find_model(options.run_dir))
    explainer, method = evidence.make_explainer(model, method, color)
    checked = _choose_checked(table, method)
    tumor = _read_masks(checked, mask_dir)
    images = records_folder.Selection(tuple(records.list_shards()))
    rows = checked.index.to_numpy()
    maps = _map_networks(model, method, color, images, rows)
    facts |= {"method": method} | _summarize(checked["label"], tumor, maps)
    folder = run_folder.EXPLANATIONS
    facts["overlays"] = {str(row): f"{folder}/{row}.png" for row in drawn}
    batches = _stream(explainer, images, drawn, "draw")
    pictures = (p for batch in batches for p in checks.draw(*batch))
    _write(options.output_dir, facts, pictures)
    return facts


def _map_networks(
    model: keras.Model,
    method: str,
    color: np.ndarray,
    images: records_folder.Selection,
    rows: np.ndarray,
) -> Iterator[np.ndarray]:
    """Yields the maps of rows by a network, then by some of random weights."""
    for number in range(1 + _NUM_RANDOM):
        network = redraw(model, number) if number else model
        explainer, _ = evidence.make_explainer(network, method, color)
        title = f"explain {number + 1} of {1 + _NUM_RANDOM}"
        batches = _stream(explainer, images, rows, title)
        yield np.concatenate([maps for _, maps in batches])


def redraw(model: keras.Model, seed: int) -> keras.Model:
    """Returns a network of the same layers, whose weights are drawn anew."""
    with replicas.keras_settings(seed=seed):
        return keras.models.clone_model(model)


def _find_ids(table: pandas.DataFrame, ids: Sequence[str]) -> np.ndarray:
    """Returns the rows of patches by id or name."""
    names = table[["id", "source_name"]]
    if unknown := set(ids).difference(*names.to_numpy().T):
        raise ValueError(
            f"--ids: found {min(unknown)!r}, expected patches of"
            f" {', '.join(table['split'].unique())}. Check --ids and --splits."
        )
    return table.index[names.isin(ids).any(axis=1)].to_numpy()


def _choose_examples(
    options: configuration.EvaluateOptions, facts: dict[str, Any]
) -> np.ndarray:
    """Returns the rows of patches that a report shows."""
    run_dir, folder = options.run_dir, options.output_dir
    known = predictions_file.read_folder(
        folder, "Run pcam evaluate on the same splits.", facts["model_sha256"]
    )
    for name in ("manifest_sha256", "splits"):
        if sorted(known.facts[name]) != sorted(facts[name]):
            raise ValueError(
                f"{folder}: found predictions of {name} {known.facts[name]},"
                f" expected {facts[name]}. Run pcam evaluate on the same splits."
            )
    calibration = calibration_file.read(
        run_dir, known.facts["tta"], facts["model_sha256"]
    )
    logit = (calibration or calibration_file.Calibration()).apply(known.logit)
    chosen = patch_examples.choose(known.label, logit, _NUM_EXAMPLES)
    return np.sort(known.row[np.concatenate(list(chosen.values()))])


def _choose_checked(table: pandas.DataFrame, method: str) -> pandas.DataFrame:
    """Returns patches at even distances, half of them of either label."""
    is_slow = method == choices.OCCLUSION
    count = (_NUM_OCCLUDED if is_slow else _NUM_CHECKED) // 2
    return pandas.concat(
        part.iloc[np.unique(np.linspace(0, len(part) - 1, count).astype(int))]
        for _, part in table.groupby("label")
    )


def _read_masks(checked: pandas.DataFrame, mask_dir: str) -> np.ndarray:
    """Returns the tumor of positive patches: bool [B, 96, 96], else False."""
    tumor = np.zeros((len(checked), *schema.IMAGE_SHAPE[:2]), bool)
    is_positive = checked["label"] == str(schema.POSITIVE)
    for i in np.flatnonzero(is_positive) if mask_dir else ():
        path = os.path.join(mask_dir, f"{checked['id'].iloc[i]}.png")
        with Image.open(path) as image:
            mask = np.asarray(image.convert("L"))
        if mask.shape != tumor[i].shape:
            raise ValueError(
                f"{path}: found {mask.shape}, expected {tumor[i].shape}."
            )
        tumor[i] = mask > 0
    return tumor


def _stream(
    explainer: evidence.Explainer,
    images: records_folder.Selection,
    rows: np.ndarray,
    title: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the images of batches of rows, and their maps."""
    with progress.Progress(len(rows), title) as bar:
        for start in range(0, len(rows), _BATCH_SIZE):
            image = images.read_images(rows[start : start + _BATCH_SIZE])
            yield image, explainer(image)
            bar.advance_to(start + len(image))


def _summarize(
    label: pandas.Series,
    tumor: np.ndarray,
    networks: Iterator[np.ndarray],
) -> dict[str, Any]:
    """Returns what checks say of the maps of a network, first, and of random ones."""
    own = next(networks)
    found = [
        (
            checks.share_center(maps),
            checks.point(maps, tumor),
            checks.correlate(maps, own),
        )
        for maps in itertools.chain([own], networks)
    ]
    share, hit, correlation = map(np.array, zip(*found, strict=True))
    is_positive = (label == str(schema.POSITIVE)).to_numpy()
    extent = tumor.mean(axis=(1, 2))
    is_small = (extent > 0) & (extent < _MAX_TUMOR)
    middle = tumor[is_small, schema.PATCH_SIZE // 2, schema.PATCH_SIZE // 2]
    game = {
        "num_patches": len(middle),
        "hit_rate": _mean(hit[0, is_small]),
        "random_hit_rate": _mean(hit[1:, is_small]),
        "chance": _mean(extent[is_small]),
        "center_hit_rate": _mean(middle),
    }
    return {
        "num_patches": len(label),
        "center_share": {
            "positive": _mean(share[0, is_positive]),
            "negative": _mean(share[0, ~is_positive]),
            "random_positive": _mean(share[1:, is_positive]),
            "random_negative": _mean(share[1:, ~is_positive]),
        },
        "sanity_correlation": _mean(correlation[1:]),
        "pointing_game": game if len(middle) else None,
    }


def _mean(values: np.ndarray) -> float | None:
    """Returns the mean of what is not NaN; None where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _write(
    output_dir: str, facts: dict[str, Any], pictures: Iterator[np.ndarray]
) -> None:
    """Puts all files, whose names `facts` has, in the place of earlier ones."""
    path_of = functools.partial(os.path.join, output_dir)
    folder = path_of(run_folder.EXPLANATIONS)
    with files.folder_whole(folder) as unfinished:
        for row, picture in zip(facts["overlays"], pictures, strict=True):
            Image.fromarray(picture).save(f"{unfinished}/{row}.png")
        # First: it must not name other pictures.
        files.remove(path_of(run_folder.EXPLANATIONS_JSON))
        files.remove_folder(folder)
    files.write_json(path_of(run_folder.EXPLANATIONS_JSON), facts)
