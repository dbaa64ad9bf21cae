"""`pcam explain`: files beside the scores, checks beside random weights."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import convert_folder, run_pcam
from PIL import Image

from pcam_tfdata import choices
from pcam_tfdata.evaluation import configuration, ensemble
from pcam_tfdata.explanation import explain
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.runs import environment_file, run_folder
from pcam_tfdata.synthetic import kaggle_folder
from pcam_tfdata.system import files

SPLITS = {"train_splits": ["fold1"], "validation_splits": ["fold0"]}


@pytest.fixture(scope="module")
def masked(tmp_path_factory) -> tuple[str, str]:
    """Records of made-up patches, and the folder of their masks."""
    root = tmp_path_factory.mktemp("masked")
    tree, records_dir = root / "kaggle", root / "records"
    kaggle_folder.write_kaggle_tree(
        str(tree), num_train=160, num_test=0, num_workers=1, has_masks=True
    )
    convert_folder(tree, records_dir, slide_csv=str(tree / "truth.csv"))
    return str(records_dir), str(tree / "masks")


def write_run(run_dir: pathlib.Path, records_dir: str, seed: int = 0) -> None:
    """A run with a network that finds dark, bluish spots, such as nuclei."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((96, 96, 3), dtype="uint8")
    x = keras.layers.Rescaling(-1 / 255, 1)(image)
    x = keras.layers.Conv2D(4, 4, strides=4, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalMaxPooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(1, name="logit")(x))
    run_dir.mkdir()
    model.save(run_dir / run_folder.BEST_MODEL)
    run_folder.write_flags(str(run_dir), {"model": "tiny"} | SPLITS)
    sha256 = records_folder.open_folder(records_dir).manifest_sha256
    environment_file.add_start(str(run_dir), {"manifest_sha256": sha256})


@pytest.fixture(scope="module")
def evaluated(masked, tmp_path_factory) -> pathlib.Path:
    run_dir = tmp_path_factory.mktemp("evaluated") / "run"
    write_run(run_dir, masked[0])
    done = run_pcam(
        "evaluate", f"--records_dir={masked[0]}", f"--run_dir={run_dir}",
        "--num_resamples=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return run_dir


@pytest.fixture
def run_dir(evaluated, tmp_path) -> pathlib.Path:
    return shutil.copytree(evaluated, tmp_path / "run")


def run(masked, run_dir, *flags):
    done = run_pcam(
        "explain", f"--records_dir={masked[0]}", f"--run_dir={run_dir}", *flags
    )
    assert "Traceback" not in done.stderr
    return done


def read(folder: pathlib.Path) -> dict:
    return json.loads((folder / run_folder.EXPLANATIONS_JSON).read_text())


def read_pictures(folder: pathlib.Path) -> dict[str, bytes]:
    pictures = (folder / run_folder.EXPLANATIONS).iterdir()
    return {path.name: path.read_bytes() for path in pictures}


@pytest.mark.parametrize("method", choices.EXPLANATIONS)
def test_files_tell_what_was_explained(masked, run_dir, method):
    done = run(masked, run_dir, f"--method={method}", f"--mask_dir={masked[1]}")
    assert done.returncode == 0, done.stderr
    assert "evidence in the centre: positive 0." in done.stdout
    assert "brightest pixel is tumor: hit_rate" in done.stdout
    found = read(run_dir)
    assert found["method"] == method
    assert found["splits"] == ["fold0"]
    model = run_folder.find_model(str(run_dir))
    assert found["model_sha256"] == manifest.hash_file(model)
    assert found["num_patches"] <= 512
    for name in ("positive", "random_positive"):
        assert 0 <= found["center_share"][name] <= 1
    game = found["pointing_game"]
    assert game.keys() == {
        *("num_patches", "hit_rate", "random_hit_rate"),
        *("chance", "center_hit_rate"),
    }
    assert 0 < game["chance"] < 0.25
    assert abs(found["sanity_correlation"]) <= 1
    overlays = found["overlays"]
    assert {path.partition("/")[2] for path in overlays.values()} == set(
        read_pictures(run_dir)
    )
    for path in overlays.values():
        with Image.open(run_dir / path) as picture:
            assert (picture.size, picture.mode) == ((96, 96), "RGB")


@pytest.mark.long
def test_killed_call_leaves_the_earlier_pictures(masked, run_dir):
    run(masked, run_dir)
    first = read(run_dir), read_pictures(run_dir)
    unfinished = run_dir / f"{run_folder.EXPLANATIONS}{files.INCOMPLETE}"
    process = subprocess.Popen(
        [sys.executable, "-m", "pcam_tfdata", "explain", "--method=occlusion",
         f"--records_dir={masked[0]}", f"--run_dir={run_dir}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not list(unfinished.glob("*.png")):
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert unfinished.is_dir()
    assert (read(run_dir), read_pictures(run_dir)) == first
    run(masked, run_dir)
    assert not unfinished.exists()
    assert (read(run_dir), read_pictures(run_dir)) == first


def test_two_calls_give_the_same_bytes(masked, run_dir):
    run(masked, run_dir)
    first = read(run_dir), read_pictures(run_dir)
    assert "is tumor" not in run(masked, run_dir).stdout
    assert (read(run_dir), read_pictures(run_dir)) == first
    assert first[0]["pointing_game"] is None


def test_named_patches_take_the_place_of_all_pictures(masked, run_dir):
    run(masked, run_dir)
    before = read_pictures(run_dir)
    # What a job that was killed leaves.
    left = run_dir / f"{run_folder.EXPLANATIONS}.incomplete"
    left.mkdir()
    (left / "7.png").touch()
    table = records_folder.open_folder(masked[0]).read_sidecar(["id", "split"])
    rows = table.index[table["split"] == "fold0"][:2]
    ids = ",".join(table["id"][rows])
    done = run(masked, run_dir, f"--ids={ids}")
    assert done.returncode == 0, done.stderr
    assert set(read_pictures(run_dir)) == {f"{row}.png" for row in rows}
    assert set(read(run_dir)["overlays"]) == set(map(str, rows))
    assert len(before) > 2 and not left.exists()


def test_other_splits_have_a_folder_of_their_own(masked, run_dir):
    done = run(masked, run_dir, "--splits=fold1")
    assert done.returncode == 1
    folder = run_dir / run_folder.EVALUATIONS / "fold1"
    assert done.stderr.endswith(
        f"{folder}/metrics.json: not found, expected predictions of labelled"
        " patches. Run pcam evaluate on the same splits.\n"
    )
    assert not folder.exists()
    run_pcam(
        "evaluate", f"--records_dir={masked[0]}", f"--run_dir={run_dir}",
        "--splits=fold1", "--num_resamples=0",
    )  # fmt: skip
    done = run(masked, run_dir, "--splits=fold1")
    assert done.returncode == 0, done.stderr
    assert read(folder)["splits"] == ["fold1"]
    assert not (run_dir / run_folder.EXPLANATIONS_JSON).exists()


def break_network(run_dir):
    path = run_dir / run_folder.METRICS_JSON
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"model_sha256": "0" * 64}))


def break_records(run_dir):
    path = run_dir / run_folder.METRICS_JSON
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"manifest_sha256": "0" * 64}))


def break_predictions(run_dir):
    (run_dir / run_folder.PREDICTIONS).unlink()


@pytest.mark.parametrize(
    ("spoil", "flags", "message"),
    [
        (break_network, [], "found predictions of an earlier network: 000"),
        (break_records, [], "found predictions of manifest_sha256 000"),
        (break_predictions, [], "predictions.csv: not found, expected"),
        (None, ["--ids=unheard"], "--ids: found 'unheard', expected patches"),
        (None, ["--mask_dir=nowhere"], ".png: No such file or directory."),
        (None, ["--splits=fold9"], "fold9"),
    ],
    ids=["network", "records", "predictions", "ids", "masks", "splits"],
)
def test_what_is_missing_is_told_in_one_line(
    masked, run_dir, spoil, flags, message
):
    if spoil:
        spoil(run_dir)
    done = run(masked, run_dir, *flags)
    assert done.returncode == 1
    (line,) = [
        line
        for line in done.stderr.splitlines()
        if not line.startswith(("Files of", "Warning: "))
    ]
    assert message in line
    assert not (run_dir / run_folder.EXPLANATIONS).exists()
    assert not (run_dir / run_folder.EXPLANATIONS_JSON).exists()


def test_a_mask_of_another_size_is_told(masked, run_dir, tmp_path):
    masks = shutil.copytree(masked[1], tmp_path / "masks")
    for path in masks.iterdir():
        Image.new("L", (32, 32)).save(path)
    done = run(masked, run_dir, f"--mask_dir={masks}")
    assert done.returncode == 1
    assert "found (32, 32), expected (96, 96)" in done.stderr


def test_an_ensemble_is_explained(masked, tmp_path):
    for number, name in enumerate("ab"):
        write_run(tmp_path / name, masked[0], number)
    run_dir = tmp_path / "c"
    ensemble.make_run([str(tmp_path / n) for n in "ab"], str(run_dir))
    table = records_folder.open_folder(masked[0]).read_sidecar(["id", "split"])
    patch = table["id"][table["split"] == "fold0"].iloc[0]
    found = explain.explain(
        configuration.EvaluateOptions(masked[0], str(run_dir)), ids=[patch]
    )
    assert found["method"] == choices.HIRESCAM
    assert len(found["overlays"]) == 1


def test_random_weights_are_others_and_the_same_each_time():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    first, again, other = (
        explain.redraw(model, seed).get_weights()[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    for weights in (other, model.get_weights()[0]):
        assert (first != weights).all()


@pytest.mark.long
def test_pointing_finds_tumor_and_random_weights_do_not(tmp_path):
    """As `make demo` trains; Grad-CAM has to hit twice as often as chance."""
    tree, records_dir, run_dir = (tmp_path / n for n in ("k", "r", "run"))
    kaggle_folder.write_kaggle_tree(
        str(tree), num_test=0, num_workers=1, has_masks=True
    )
    convert_folder(tree, records_dir, slide_csv=str(tree / "truth.csv"))
    places = [f"--records_dir={records_dir}", f"--run_dir={run_dir}"]
    for command in (
        ["train", "--flagfile=configs/demo.flags", *places,
         "--train_splits=fold1,fold2,fold3,fold4"],
        ["evaluate", *places, "--num_resamples=0"],
    ):  # fmt: skip
        done = run_pcam(*command)
        assert done.returncode == 0, done.stderr
    for method, least in ((choices.GRADCAM, 2), (choices.HIRESCAM, 4)):
        found = explain.explain(
            configuration.EvaluateOptions(str(records_dir), str(run_dir)),
            method=method,
            mask_dir=str(tree / "masks"),
        )
        game = found["pointing_game"]
        assert game["num_patches"] > 200
        assert game["hit_rate"] > least * game["chance"]
        assert game["hit_rate"] > game["center_hit_rate"]
        assert game["random_hit_rate"] < 1.5 * game["chance"]
        assert abs(found["sanity_correlation"]) < 0.2
    share = found["center_share"]
    assert share["positive"] > 2 * share["negative"]
