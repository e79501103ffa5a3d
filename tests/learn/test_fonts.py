"""Class names in any common script are drawn, with or without East Asian fonts on the computer."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from camera_trap_al.learn.fonts import SHIPPED, font_families, shipped_font

SIMPLIFIED = (
    "雪豹 野猪 狍子 马鹿 赤狐 穿山甲 麝 猞猁 獾 貉 豺 豪猪 鼬 金钱豹 岩羊 鬣羚 "
    "毛冠鹿 小麂 果子狸 貂 狝猴 食蟹獴 鼩鼱 白鹇 䴙䴘"
)
TRADITIONAL = "臺灣黑熊 石虎 臺灣野山羊 山羌 鼬獾 白鼻心 穿山甲 獼猴 鵟"
JAPANESE = "ツキノワグマ ニホンジカ ハクビシン たぬき 狸 猪 アライグマ ー"
KOREAN = "멧돼지 고라니 반달가슴곰 수달 담비 삵 꿩"
CYRILLIC = "Снежный барс кабан росомаха рысь Манул Ґава їжак ёж"
SCRIPTS = ("simplified", "traditional", "japanese", "korean", "cyrillic")
EVERY_SCRIPT = [*SIMPLIFIED.split(), *TRADITIONAL.split(), *JAPANESE.split(), *KOREAN.split(), *CYRILLIC.split()]


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what takes long as the first of these tests runs: every test process reads this file, one runs it."""
    global Figure, FigureCanvasAgg, font_manager, matplotlib
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure


@pytest.fixture
def only_matplotlibs_fonts(monkeypatch):
    own = Path(matplotlib.get_data_path())
    fonts = [font for font in font_manager.fontManager.ttflist if own in Path(font.fname).parents]
    use_fonts(monkeypatch, fonts)


def use_fonts(monkeypatch, fonts):
    """Make `fonts` all that matplotlib knows; what it looked up before is forgotten."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    font_manager.fontManager._findfont_cached.cache_clear()


@pytest.fixture(autouse=True)
def forget_lookups():
    yield
    font_manager.fontManager._findfont_cached.cache_clear()


def boxes_drawn(texts, families):
    """Draw the texts; return what matplotlib says it has no glyph for."""
    figure = Figure(figsize=(4, 4))
    FigureCanvasAgg(figure)
    for text in texts:
        figure.text(0.1, 0.5, text, fontfamily=families)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(io.BytesIO(), format="png")
    return [str(w.message) for w in caught if "missing from" in str(w.message)]


@pytest.mark.parametrize("texts", [SIMPLIFIED, TRADITIONAL, JAPANESE, KOREAN, CYRILLIC], ids=SCRIPTS)
def test_names_are_drawn_where_the_system_has_no_east_asian_font(texts, only_matplotlibs_fonts):
    names = texts.split()
    assert boxes_drawn(names, font_families(names)) == []


def test_names_of_all_scripts_together_are_drawn_with_the_fonts_of_this_computer():
    assert boxes_drawn(EVERY_SCRIPT, font_families(EVERY_SCRIPT)) == []


def test_the_check_sees_a_missing_glyph(only_matplotlibs_fonts):
    assert len(set(boxes_drawn(["雪豹"], ["DejaVu Sans"]))) == 2


def test_latin_and_cyrillic_need_nothing_but_matplotlibs_font():
    assert font_families(["Fuchs", "renard à queue blanche", "рысь", ""]) == ["DejaVu Sans"]


def test_only_the_fonts_that_are_needed_are_named(only_matplotlibs_fonts):
    assert font_families(["雪豹"]) == ["DejaVu Sans", "CTAL Han"]
    assert font_families(["수달"]) == ["DejaVu Sans", "CTAL Hangul"]
    assert font_families(["수달", "雪豹"]) == ["DejaVu Sans", "CTAL Han", "CTAL Hangul"]


def test_a_font_of_the_system_goes_before_ours_and_ours_fills_its_gaps(only_matplotlibs_fonts, tmp_path):
    font_manager.fontManager.addfont(font_with("雪", "Microsoft YaHei", tmp_path))
    assert font_families(["雪"]) == ["DejaVu Sans", "Microsoft YaHei"]
    assert font_families(["雪豹"]) == ["DejaVu Sans", "Microsoft YaHei", "CTAL Han"]


def test_a_japanese_font_goes_first_when_the_names_are_japanese(only_matplotlibs_fonts, tmp_path):
    font_manager.fontManager.addfont(font_with("熊クマ", "Meiryo", tmp_path))
    font_manager.fontManager.addfont(font_with("熊クマ", "Microsoft YaHei", tmp_path))
    assert font_families(["熊", "クマ"]) == ["DejaVu Sans", "Meiryo"]
    assert font_families(["熊"]) == ["DejaVu Sans", "Microsoft YaHei"]


def test_another_script_is_drawn_if_any_font_of_the_system_has_it(only_matplotlibs_fonts, tmp_path):
    font_manager.fontManager.addfont(font_with("เสือ", "Some Thai Font", tmp_path))
    assert font_families(["เสือ"]) == ["DejaVu Sans", "Some Thai Font"]


def test_a_character_that_no_font_has_is_left_to_matplotlib(only_matplotlibs_fonts):
    assert font_families(["เสือ"]) == ["DejaVu Sans"]


def test_a_damaged_font_of_the_system_is_passed_over(only_matplotlibs_fonts, tmp_path):
    path = font_with("雪", "Microsoft YaHei", tmp_path)
    font_manager.fontManager.addfont(path)
    path.write_bytes(b"no font")
    assert font_families(["雪"]) == ["DejaVu Sans", "CTAL Han"]


def test_joiners_and_spaces_need_no_font(only_matplotlibs_fonts):
    assert font_families(["red\u200b\u200d fox\ufe0f\u3000\t"]) == ["DejaVu Sans"]


@pytest.mark.parametrize("family", sorted(SHIPPED))
def test_each_shipped_font_lies_beside_its_licence(family):
    path = shipped_font(family)
    assert font_manager.get_font(path).family_name == family
    notes = (path.parent / "README.md").read_text(encoding="utf-8")
    assert f"`{path.name}`" in notes
    for licence in ("Apache-2.0.txt", "OFL.txt"):
        assert f"`{licence}`" in notes
        assert (path.parent / licence).stat().st_size > 1000


def font_with(characters, family, folder):
    """Write a font whose every glyph is a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 500), (500, 500), (500, 0)):
        pen.lineTo(point)
    pen.closePath()
    square = pen.glyph()
    names = [f"uni{ord(c):04X}" for c in dict.fromkeys(characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap({int(name[3:], 16): name for name in names})
    builder.setupGlyf(dict.fromkeys([".notdef", *names], square))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = folder / f"{family}.ttf"
    builder.save(path)
    return path
