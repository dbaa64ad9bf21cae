"""Shows where in patches the best model of a run finds tumor.

Writes explanations.json and a folder explanations of pictures beside the scores of
pcam evaluate. The brighter a spot, the more it speaks for tumor, within each patch;
the frame is the centre, which the label is about. Prints which share of the evidence
lies there, and what networks of random weights give: where that is the same, the
pictures say nothing.
"""

from absl import flags

from pcam_tfdata import choices
from pcam_tfdata.cli import flag_groups, next_step, quiet

REQUIRED_FLAGS = ("records_dir", "run_dir")

flag_groups.define_scored_splits()
flags.DEFINE_list(
    "ids", [], "Patches to draw. Default: the surest and the least sure."
)
flags.DEFINE_enum(
    "method",
    choices.HIRESCAM,
    choices.EXPLANATIONS,
    "hirescam: each place of the last fine map of features by its gradient; gradcam:"
    " each channel by its mean gradient; occlusion: what grey squares take away, for"
    " any network, slow.",
)
flags.DEFINE_string(
    "mask_dir",
    "",
    "Folder of ID.png, not 0 where tumor is, as pcam synthesize --masks writes: also"
    " tells how often the brightest pixel is tumor.",
)


def run() -> None:
    """Writes explanations and prints what their checks say."""
    with quiet.imports():
        from pcam_tfdata.evaluation import configuration
        from pcam_tfdata.explanation import explain
    found = explain.explain(
        flag_groups.from_flags(configuration.EvaluateOptions),
        ids=flags.FLAGS.ids,
        method=flags.FLAGS.method,
        mask_dir=flags.FLAGS.mask_dir,
    )
    print(f"{found['method']}: {len(found['overlays']):,} patches drawn.")
    for title, values in (
        ("evidence in the centre", found["center_share"] | {"even": 1 / 9}),
        (
            "maps alike, rank correlation",
            {"random": found["sanity_correlation"]},
        ),
        ("brightest pixel is tumor", found["pointing_game"] or {}),
    ):
        known = [
            f"{n} {v:.3f}" for n, v in values.items() if isinstance(v, float)
        ]
        if known:
            print(f"{title}: {', '.join(known)}")
    given = flags.FLAGS
    folders = f"--records_dir={given.records_dir}", f"--run_dir={given.run_dir}"
    splits = f"--splits={','.join(given.splits)}"
    next_step.tell("report", *folders, *[splits] * bool(given.splits))
