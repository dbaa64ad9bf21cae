"""The page in a browser: no request, no error, all that moves, all can read it."""

import json
import os
import pathlib
import shutil
import time

import conftest
import numpy as np
import pytest
import reports
import scored_runs
from sklearn import metrics as sklearn_metrics

from pcam_tfdata.evaluation import metrics
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import predictions_file, run_folder

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: .[dev]"
)
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="chromium is not installed: make browser"
)
AXE = pathlib.Path(
    os.environ.get("PCAM_AXE", conftest.ROOT / ".venv/node/node_modules/axe-core")
) / "axe.min.js"  # fmt: skip
SCREENS = [
    pytest.param(width, scheme, id=f"{width}-{scheme}")
    for width in (1440, 390)
    for scheme in ("light", "dark")
]
MOST_BYTES = 3_000_000


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


class Visit:
    """A page that is open, with what it asked for and complained of."""

    def __init__(self, browser, path, width=1440, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme, **options,
        )  # fmt: skip
        self.page = context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", lambda m: self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(path.as_uri())

    def check(self, path):
        others = [r for r in self.requests if not r.startswith("data:")]
        assert others == [path.as_uri()]
        assert self.complaints == []

    def field(self, name):
        found = self.page.locator(f"[data-field={name}]").first.text_content()
        return float(found.replace(",", "")) if found != "-" else None


@pytest.fixture(scope="module")
def run_dir(records_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    return reports.write_run(folder, records_dir, noise=2.0)


@pytest.fixture(scope="module")
def path(records_dir, run_dir):
    output = run_dir.parent / "page.html"
    reports.write_page(output, records_dir, run_dir)
    return output


def test_slider_moves_the_confusion_matrix(browser, path, run_dir):
    visit = Visit(browser, path)
    predictions = predictions_file.read(str(run_dir))
    probability = metrics.to_probability(predictions.logit / 1.5 - 0.2)
    slider = visit.page.get_by_role("slider")
    last = int(slider.get_attribute("max"))
    assert visit.field("threshold") == 0.5
    for place in (None, 0, last // 5, last // 3, last // 2, last - 9, last):
        if place is not None:
            slider.fill(str(place))
        predicted = probability >= visit.field("threshold")
        expected = sklearn_metrics.confusion_matrix(
            predictions.label, predicted, labels=(0, 1)
        ).ravel()
        names = ("tn", "fp", "fn", "tp")
        assert [visit.field(name) for name in names] == expected.tolist()
        report = sklearn_metrics.classification_report(
            predictions.label, predicted, output_dict=True, zero_division=np.nan,
            labels=(0, 1), target_names=("n", "p"),
        )  # fmt: skip
        for name, value in (
            ("sensitivity", report["p"]["recall"]),
            ("specificity", report["n"]["recall"]),
            ("ppv", report["p"]["precision"]),
            ("npv", report["n"]["precision"]),
            ("accuracy", np.mean(predicted == predictions.label)),
            ("f1_positive", report["p"]["f1-score"]),
        ):
            found = visit.field(name)
            if found is None:
                assert np.isnan(value), name
            else:
                assert found == pytest.approx(value, abs=6e-5), name
    visit.check(path)


@pytest.mark.long
def test_patches_are_filtered_and_sorted(browser, path):
    visit = Visit(browser, path)
    shown = visit.page.locator(".controls + .patches > li:visible")
    num_patches = shown.count()
    assert num_patches > 10
    visit.page.get_by_role("combobox", name="Label").select_option("positive")
    labels = shown.evaluate_all("all => all.map((one) => one.dataset.label)")
    assert 0 < len(labels) < num_patches
    assert {*labels} == {"positive"}
    visit.page.get_by_role("combobox", name="Order").select_option(
        "probability"
    )
    found = shown.evaluate_all(
        "all => all.map((one) => Number(one.dataset.probability))"
    )
    assert found == sorted(found)
    status = visit.page.locator("[role=status]")
    assert status.text_content() == f"{len(labels)} of {num_patches} patches"
    slide = shown.first.get_attribute("data-slide")
    visit.page.get_by_role("searchbox").fill(slide.upper())
    slides = shown.evaluate_all("all => all.map((one) => one.dataset.slide)")
    assert {*slides} == {slide}
    visit.check(path)


@pytest.mark.long
def test_slides_are_sorted_by_any_column_with_the_keyboard(browser, path):
    visit = Visit(browser, path)
    table = visit.page.locator("table.sortable").first
    for name, place in (("mean probability", 5), ("slide", 0)):
        button = table.get_by_role("button", name=name)
        for order in ("ascending", "descending"):
            button.focus()
            visit.page.keyboard.press("Enter")
            found = table.locator("tbody tr").evaluate_all(
                f"rows => rows.map((row) => row.cells[{place}].dataset.value"
                f" ?? row.cells[{place}].textContent)"
            )
            values = [float(value) if place else value for value in found]
            assert values == sorted(values, reverse=order == "descending")
            head = table.locator("thead th").nth(place)
            assert head.get_attribute("aria-sort") == order
    visit.check(path)


@pytest.mark.long
def test_page_reads_without_javascript(browser, path):
    visit = Visit(browser, path, java_script_enabled=False)
    assert visit.page.get_by_text("ranks tumor above normal").is_visible()
    assert visit.field("threshold") == 0.5
    assert visit.field("tp") > 0
    assert visit.page.locator(".controls:visible").count() == 0
    assert visit.page.locator(".patches > li:visible").count() > 30


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_axe_finds_no_serious_fault(browser, records_dir, path, width, scheme):
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: make browser")
    second = reports.write_run(path.parent / "second", records_dir, noise=9)
    three = path.parent / "three.html"
    runs = [path.parent / "first", second, second / ".." / "first"]
    reports.write_page(three, records_dir, *runs)
    for one in (path, three):
        visit = Visit(browser, one, width, scheme)
        for part in visit.page.locator("details").all():
            part.evaluate("one => { one.open = true; }")
        visit.page.evaluate(AXE.read_text())
        found = visit.page.evaluate("axe.run()")["violations"]
        serious = [
            (fault["id"], fault["nodes"][0]["html"][:200])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]
        assert not serious
        room = visit.page.evaluate("document.documentElement.scrollWidth")
        assert room <= width  # Nothing hangs over at the side.
        visit.check(one)


@pytest.mark.long
def test_page_of_two_runs_on_real_patches_with_their_audit(
    browser, kaggle_sample, tmp_path
):
    records_dir, audit_dir = tmp_path / "records", tmp_path / "audit"
    conftest.convert_folder(kaggle_sample, records_dir)
    runs = [
        reports.write_run(tmp_path / name, str(records_dir), noise=noise)
        for name, noise in (("first", 1.0), ("second", 4.0))
    ]
    result = conftest.run_pcam(
        "audit", f"--records_dir={records_dir}", f"--output_dir={audit_dir}"
    )
    assert result.returncode == 0, result.stderr
    path = tmp_path / "page.html"
    reports.write_page(path, str(records_dir), *runs, audit_dir=str(audit_dir))
    assert path.stat().st_size < MOST_BYTES
    visit = Visit(browser, path)
    findings = json.loads((audit_dir / "audit.json").read_text())["findings"]
    for finding in findings:
        assert visit.page.get_by_text(finding["text"]).count()
    assert visit.page.get_by_text("AUC, difference").count()
    visit.check(path)


@pytest.mark.long
def test_page_of_50000_predictions_is_small_and_opens_at_once(
    browser, shared_tree, tmp_path
):
    # Records that say they have 50,000 patches have them: 50,000 links to 500.
    images = np.random.default_rng(0).integers(
        0, 256, (500, 96, 96, 3), np.uint8
    )
    folder = tmp_path / "images"
    for label in (0, 1):
        (folder / str(label)).mkdir(parents=True)
    from PIL import Image

    for number, image in enumerate(images):
        first = folder / str(number % 2) / f"{number}.png"
        Image.fromarray(image).save(first)
        for copy in range(99):
            os.link(first, first.with_name(f"{number}_{copy}.png"))
    records_dir = str(tmp_path / "records")
    conftest.convert_folder(folder, records_dir, source="folder", num_folds=2)
    records = records_folder.open_folder(records_dir)
    table = records.read_sidecar(["label"])
    label = table["label"].to_numpy(int)
    assert len(label) == 50_000
    logit = 2 * label - 1 + np.random.default_rng(1).normal(size=len(label))
    slide = np.arange(len(label)) // 500
    run_dir = scored_runs.write(
        tmp_path / "run", label, logit, slide.astype(str),
        splits=["fold0", "fold1"], manifest_sha256=records.manifest_sha256,
    )  # fmt: skip
    flags = {
        "model": "m",
        "train_splits": "x",
        "validation_splits": "fold0,fold1",
    }
    run_folder.write_flags(str(run_dir), flags)
    path = tmp_path / "page.html"
    began = time.monotonic()
    result = conftest.run_program(
        "report", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        f"--output={path}",
    )  # fmt: skip
    seconds = time.monotonic() - began
    assert result.returncode == 0, result.stderr
    assert seconds < 60  # 10 where nothing else runs.
    assert path.stat().st_size < MOST_BYTES
    assert path.read_text().count("data:image/jpeg") >= 96
    visit = Visit(browser, path)
    visit.check(path)
    print(json.dumps({"seconds": seconds, "bytes": path.stat().st_size}))
