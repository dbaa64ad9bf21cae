"""Whether finished records are those that a conversion would write."""

from collections.abc import Iterator

from pcam_tfdata.conversion import convert
from pcam_tfdata.records import records_folder
from pcam_tfdata.sources import catalog, listing
from pcam_tfdata.system import nested_options

# Whose patches are listed in no time; others may have to be unpacked.
_LISTED = ("kaggle", "folder")


def is_made_of(
    records: records_folder.RecordsFolder, options: convert.ConvertOptions
) -> bool:
    """Returns whether names, labels, slides and options are those of a job.

    Of HDF5 files and TensorFlow datasets it is not known, so False.
    """
    made, wanted = records.content.options, nested_options.list_leaves(options)
    shared = made.keys() & wanted.keys()
    if wanted["source"] not in _LISTED or any(
        made[name] != wanted[name] for name in shared
    ):
        return False
    columns = ["source_name", "label", "slide"]
    table = records.read_sidecar(columns)[columns]
    written = set(table.itertuples(index=False, name=None))
    listings, _ = catalog.list_patches(options.input)
    listed = {row for part in listings for row in _list_rows(part)}
    is_part = options.on_bad_patch == "skip" and written <= listed
    return is_part or written == listed


def _list_rows(part: listing.Listing) -> Iterator[tuple[str, ...]]:
    """Yields name, label and slide of each patch, as the sidecar has them."""
    slides = [b""] * len(part) if part.slides is None else part.slides.tolist()
    names = map(bytes.decode, part.names.tolist())
    labels = map(str, part.labels.tolist())
    return zip(names, labels, map(bytes.decode, slides), strict=True)
