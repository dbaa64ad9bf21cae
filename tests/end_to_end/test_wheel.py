"""What is installed from a wheel works in a folder without the checkout."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest
import yaml

import pcam_tfdata

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "pcam_tfdata"
SOURCES = (
    *("CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "README.md"),
    *("pyproject.toml", "setup.py"),
)
# Of a shell that is in no environment and no checkout.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
}


def run(*arguments: object, cwd: pathlib.Path) -> str:
    """Returns stdout and stderr of a program that must end well."""
    result = subprocess.run(
        list(map(str, arguments)), cwd=cwd, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    return result.stdout


def list_files() -> set[str]:
    """Returns the files of the package, those behind its link to configs too."""
    found = [p for p in PACKAGE.rglob("*") if "__pycache__" not in p.parts]
    found += (PACKAGE / "configs").iterdir()
    return {
        path.relative_to(ROOT).as_posix() for path in found if path.is_file()
    }


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> pathlib.Path:
    """A folder with a wheel and a source distribution, made without a warning."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        shutil.copy(ROOT / name, tree)
    for name in ("pcam_tfdata", "configs"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True)
    told = run(sys.executable, "-m", "build", cwd=tree)
    assert not re.search(r"warning|deprecat", told, re.I), told
    return tree / "dist"


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory) -> pathlib.Path:
    """The folder of programs of a new environment that has the wheel.

    What the package requires comes from the environment of the tests.
    """
    place = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", place, cwd=place)
    (site_packages,) = place.glob("lib/python*/site-packages")
    required = sysconfig.get_path("purelib")
    (site_packages / "required.pth").write_text(f"{required}\n")
    (wheel,) = dist.glob("*.whl")
    run(
        place / "bin" / "pip", "install", "--disable-pip-version-check",
        "--no-deps", "--ignore-installed", wheel, cwd=place,
    )  # fmt: skip
    path = run(
        place / "bin" / "python", "-c",
        "import pcam_tfdata; print(pcam_tfdata.__file__)", cwd=place,
    )  # fmt: skip
    assert pathlib.Path(path).is_relative_to(place)
    return place / "bin"


@pytest.mark.long
def test_wheel_holds_the_package_and_nothing_else(dist):
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    found = {name for name in names if ".dist-info/" not in name}
    assert found == list_files()
    for name in (
        "cli/templates/completion.zsh.j2",
        "configs/demo.flags",
        "configs/multi_worker.sbatch",
        "doctor/problems.csv",
        "evaluation/templates/model_card.md.j2",
        "report/templates/page.html.j2",
    ):
        assert f"pcam_tfdata/{name}" in found


@pytest.mark.long
def test_source_distribution_holds_what_the_wheel_is_made_of(dist):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert list_files() | set(SOURCES) <= names


@pytest.mark.long
def test_demos_steps_work_from_the_wheel(installed, tmp_path):
    def pcam(command: str, *arguments: str) -> str:
        return run(installed / "pcam", command, *arguments, cwd=tmp_path)

    folders = ("--records_dir=records", "--run_dir=run")
    assert "usage: pcam COMMAND" in pcam("--help")
    pcam("synthesize", "--output_dir=kaggle", "--num_train=160", "--num_test=8")
    pcam(
        "convert_to_tfrecords", "--input_dir=kaggle", "--output_dir=records",
        "--slide_csv=kaggle/truth.csv",
    )  # fmt: skip
    pcam("train", "--flagfile=configs/demo.flags", "--epochs=1", *folders)
    assert "--model=small_cnn" in (tmp_path / "run" / "flags.txt").read_text()
    pcam("evaluate", *folders)
    assert (tmp_path / "run" / "model_card.md").is_file()
    pcam("report", *folders)
    assert (tmp_path / "report.html").is_file()
    pcam("predict", *folders, "--output_csv=submission.csv")
    rows = (tmp_path / "submission.csv").read_text().splitlines()
    assert (rows[0], len(rows)) == ("id,label", 9)
    assert "--flagfile" in pcam("completion", "zsh")


def test_citation_is_of_this_version():
    """What CFF 1.2.0 requires, and what it must be; of other things, nothing."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == pcam_tfdata.__version__
    assert cited["license"] == "Apache-2.0"
    assert cited["title"] == pcam_tfdata.__name__
    for work in (cited, *cited["references"]):
        assert work["authors"] and work["title"]
        for author in work["authors"]:
            assert author.keys() <= {"name", "family-names", "given-names"}
    assert cited["message"]
