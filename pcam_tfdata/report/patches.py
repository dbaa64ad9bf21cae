"""Patches that are worth a look, as cards of a page."""

import base64
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas
from PIL import Image

from pcam_tfdata import schema
from pcam_tfdata.records import records_folder
from pcam_tfdata.report import scored_run
from pcam_tfdata.runs import patch_examples, reading, run_folder

_MOST_CARDS = 24  # Of a group, over all runs.
_COLUMNS = ("split", "slide", "source_name", "label")
_QUALITY = 90  # 100 patches are 0.8 MB then, as PNG 3.0 MB.


class Cards:
    """Makes cards of rows of a records folder: dicts of what is shown."""

    def __init__(self, records: records_folder.RecordsFolder) -> None:
        self._table = records.read_sidecar(_COLUMNS)
        self._shards = records_folder.Selection(tuple(records.list_shards()))

    def make(self, row: int, group: str = "", **more: Any) -> dict[str, Any]:
        """Returns the card of a row, in a group, with what else is known of it.

        Raises:
            FileNotFoundError, ValueError: its shard is not there or damaged.
        """
        (image,) = self._shards.read_images(np.array([row]))
        picture = encode(Image.fromarray(image))
        known = {"image": picture, "group": group.replace("_", " ")}
        return {**known, **self._table.loc[row, [*_COLUMNS]], **more}

    def sample(self, count: int) -> list[dict[str, Any]]:
        """Returns labelled patches, drawn at random, always the same ones."""
        rows = np.flatnonzero(self._table["label"] != str(schema.UNLABELED))
        drawn = np.random.default_rng(0).permutation(rows)[:count]
        return [self.make(int(row)) for row in np.sort(drawn)]

    def choose(
        self,
        run: scored_run.ScoredRun,
        explained: Mapping[str, Any],
        num_runs: int,
    ) -> list[dict[str, Any]]:
        """Returns the groups of `patch_examples` of one of several runs.

        `explained` is what `explanations.json` says, or nothing.
        """
        cards, count = [], max(4, _MOST_CARDS // num_runs)
        chosen = patch_examples.choose(run.predictions.label, run.logit, count)
        for group, place in ((g, p) for g in chosen for p in chosen[g]):
            row = int(run.predictions.row[place])
            more = {"probability": run.probability[place]}
            if name := explained.get("overlays", {}).get(str(row)):
                with reading.noted(run.training, run.folder, name) as path:
                    with Image.open(path) as picture:
                        more["overlay"] = encode(picture.convert("RGB"))
            cards.append(self.make(row, group, **more))
        return cards

    def find_suspects(self, run: scored_run.ScoredRun) -> list[dict[str, Any]]:
        """Returns patches whose labels a cross-validation around it contradicts."""
        cards: list[dict[str, Any]] = []
        parent = os.path.dirname(os.path.abspath(run.run_dir))
        with reading.noted(run.training, parent, run_folder.SUSPECTS) as path:
            table = pandas.read_csv(path, dtype={"id": str})[:_MOST_CARDS]
            names = self._table["source_name"].iloc[table["row"]]
            if list(names) != list(table["id"]):
                raise ValueError("found patches of other records")
            for row, probability in table[["row", "probability"]].to_numpy():
                cards.append(self.make(int(row), probability=probability))
        return cards


def encode(picture: Image.Image) -> str:
    """Returns a picture as a data URL of a JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/jpeg;base64,{text}"
