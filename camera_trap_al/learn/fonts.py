"""Which fonts draw the class names in a figure, whatever their script.

Fonts of the system go first; two small fonts that come with the package draw Chinese, Japanese and Korean where the
system has none. matplotlib's own DejaVu Sans covers Latin, Cyrillic and Greek.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

DEFAULT_FAMILY = "DejaVu Sans"
SHIPPED = {"CTAL Han": "ctal-han.ttf", "CTAL Hangul": "ctal-hangul.otf"}
# They say they have every character and draw a box for each.
PLACEHOLDER_FAMILIES = frozenset(
    {"Last Resort", "Last Resort High-Efficiency", "LastResort", ".LastResort", "Adobe Blank"}
)
REGULAR_WEIGHTS = frozenset({"400", "normal", "regular", "book", "roman"})

# A Han character looks different in China, Taiwan, Japan and Korea, so the script of the other names decides.
JAPANESE = (
    *("Yu Gothic", "Meiryo", "MS Gothic", "Hiragino Sans", "Hiragino Kaku Gothic ProN"),
    *("Noto Sans CJK JP", "Noto Sans JP", "Source Han Sans JP", "IPAexGothic", "TakaoPGothic", "VL Gothic"),
)
KOREAN = (
    *("Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic", "Noto Sans CJK KR", "Noto Sans KR"),
    *("Source Han Sans KR", "NanumGothic", "UnDotum"),
)
CHINESE = (
    *("Microsoft YaHei", "Microsoft JhengHei", "SimHei", "PingFang SC", "PingFang TC", "PingFang HK"),
    *("Hiragino Sans GB", "Heiti SC", "Heiti TC", "STHeiti", "Arial Unicode MS", "Noto Sans CJK SC", "Noto Sans SC"),
    *("Noto Sans CJK TC", "Noto Sans TC", "Source Han Sans SC", "Source Han Sans CN", "Noto Sans CJK JP"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
)


def font_families(texts: Iterable[str]) -> list[str]:
    """Return matplotlib font families, in the order of fallback, that together draw the texts.

    Each character goes to the first of: DejaVu Sans, the usual East Asian fonts of the system, the fonts of this
    package, any other font of the system (Arabic, Devanagari, Thai, … are drawn only if there is one). Only families
    that are needed are named. The package's fonts are made known to matplotlib when needed.

    Parameters
    ----------
    texts : what will be drawn, such as class names

    Returns
    -------
    Families for `fontfamily=` or `rcParams["font.family"]`; the first is always "DejaVu Sans". A character that no
    font has is left to matplotlib, which draws a box.
    """
    joined = "".join(texts)
    families = [DEFAULT_FAMILY]
    missing = _not_drawn_by(DEFAULT_FAMILY, {c for c in joined if _has_a_shape(c)})
    for family in _usual_families(joined):
        missing = _add_if_useful(family, missing, families)
    if missing:
        _register_shipped()
        for family in SHIPPED:
            missing = _add_if_useful(family, missing, families)
    if missing:
        for family in _other_families():
            missing = _add_if_useful(family, missing, families)
    return families


def shipped_font(family: str) -> Path:
    """Return the file of a family in `SHIPPED`."""
    return Path(__file__).with_name("fonts") / SHIPPED[family]


def _usual_families(text: str) -> list[str]:
    """Order the usual East Asian families by the script of the text; those that are installed."""
    names = {unicodedata.name(c, "").split(" ")[0] for c in set(text)}
    order = [*CHINESE, *JAPANESE, *KOREAN]
    if "HANGUL" in names:
        order = [*KOREAN, *order]
    if names & {"HIRAGANA", "KATAKANA"}:
        order = [*JAPANESE, *order]
    installed = _installed()
    return [family for family in dict.fromkeys(order) if family in installed]


def _other_families() -> list[str]:
    """Name every upright, regular family, sorted; matplotlib complains aloud about each one that is not."""
    from matplotlib import font_manager

    upright = (font for font in font_manager.fontManager.ttflist if font.style == font.stretch == "normal")
    names = {font.name for font in upright if str(font.weight) in REGULAR_WEIGHTS}
    return sorted(names - PLACEHOLDER_FAMILIES)


def _has_a_shape(character: str) -> bool:
    """Say whether a character is drawn at all: no space, control, joiner or variation selector."""
    is_selector = unicodedata.name(character, "").startswith("VARIATION SELECTOR")
    return unicodedata.category(character)[0] not in "ZC" and not is_selector


def _add_if_useful(family: str, missing: set[str], families: list[str]) -> set[str]:
    """Append `family` if it draws any of `missing`; return what is still missing."""
    if not missing:
        return missing
    still = _not_drawn_by(family, missing)
    if len(still) < len(missing):
        families.append(family)
    return still


def _not_drawn_by(family: str, characters: set[str]) -> set[str]:
    font = _open(family)
    if font is None:
        return characters
    return {c for c in characters if font.get_char_index(ord(c)) == 0}


def _open(family: str) -> FT2Font | None:
    """Open the file that matplotlib would use for a family, or None where it cannot draw with it (bitmaps, damage)."""
    from matplotlib import font_manager

    try:
        path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
        font = font_manager.get_font(path)
    except (ValueError, OSError, RuntimeError):
        return None
    return font if font.scalable else None


def _installed() -> set[str]:
    from matplotlib import font_manager

    return set(font_manager.get_font_names())


def _register_shipped() -> None:
    from matplotlib import font_manager

    for family in sorted(set(SHIPPED) - _installed()):
        font_manager.fontManager.addfont(shipped_font(family))
