"""Pictures on disks and in pages."""

import re

import matplotlib
from PIL import Image

from pcam_tfdata.system import pictures


@pictures.in_style
def draw(title="a $title$ & <more>"):
    drawing = pictures.new_figure(3, 2)
    axes = drawing.subplots()
    axes.plot([0, 1], label="line")
    axes.set_title(title)
    axes.legend()
    return drawing


def test_a_picture_is_written_as_png_and_svg_the_same_each_time(tmp_path):
    written = []
    for name in ("a.png", "b.png"):
        pictures.save(draw(), str(tmp_path / name))
        paths = pictures.list_paths(str(tmp_path / name))
        written.append([open(path, "rb").read() for path in paths])
    assert written[0] == written[1]
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
    assert (
        ">a $title$ &amp; &lt;more&gt;</text>"
        in (tmp_path / "a.svg").read_text()
    )
    assert len([*tmp_path.iterdir()]) == 4


def test_settings_of_others_stay(tmp_path):
    before = dict(matplotlib.rcParams)
    pictures.save(draw(), str(tmp_path / "a.png"))
    assert dict(matplotlib.rcParams) == before


def test_figures_of_a_page_share_no_id_and_have_its_colour():
    first, second = (
        pictures.to_svg(draw(), name, 'what "it" shows') for name in "ab"
    )
    ids = [set(re.findall(r' id="([^"]*)"', text)) for text in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for text, own in zip((first, second), ids, strict=True):
        assert set(re.findall(r"url\(#([^)]*)\)", text)) <= own
        assert set(re.findall(r'href="#([^"]*)"', text)) <= own
        assert text.startswith("<svg")
        assert "<style" not in text
        assert pictures.INK not in text
        assert "currentColor" in text
        assert 'aria-label="what &quot;it&quot; shows"' in text
