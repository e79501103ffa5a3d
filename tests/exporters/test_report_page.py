"""The page of a report: what it shows, that nothing in it is run or fetched, and that it can be read by everybody."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import text as any_text
from rich_report import PNG, rich_report

from camera_trap_al.exporters.report_facts import CurvePoint, Doubt, Example, Name, Report, Share
from camera_trap_al.exporters.report_page import MOST_CLASSES, OTHERS, SECTIONS, report_page
from camera_trap_al.report_quality import Measured, quality_of

ELEMENTS = set(
    "html head meta title link style body header h1 h2 h3 p nav ul li a div section table caption thead tbody tr th td"
    " details summary svg line polyline polygon circle rect text figure img figcaption strong span br bdi".split()
)
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a\u202eb\x00c\ud800", "]]>--></style><b>")


class Page(HTMLParser):
    """The elements of a page, with their attributes; and the text that is seen."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.seen: list[str] = []
        self.style = ""
        self._at = ""
        self.feed(page.decode("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._at = tag

    def handle_data(self, data: str) -> None:
        if self._at == "style":
            self.style += data
            self._at = ""
        self.seen.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def check_that_nothing_is_run_or_fetched(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag in ELEMENTS, tag
        assert not any(name.startswith("on") or name == "style" for name in attributes), attributes
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
        assert not {"srcset", "action", "formaction", "background", "xlink:href", "poster"} & set(attributes)
    assert not re.search(r"url\(|@import|@font-face", page.style)


def hostile_report(names: tuple[str, ...]) -> Report:
    one, two = names[0], names[-1]
    measured = Measured(
        np.arange(2), (one, two), tuple(dict.fromkeys((one, two))), np.eye(2, len({one, two}), dtype=np.float32), one
    )
    return Report(
        title=one,
        todo=two,
        problems=names,
        advice=names,
        quality=quality_of(measured, [], {}),
        sites=(Share(two, 1, 2),),
        best=(Example(PNG, 1, 1, one, two, two, 1.0),),
        worst=(Example(PNG, 1, 1, one, one, two, 1.0),),
        doubts=(Doubt(one, one, two, 0.5),),
        names=(Name(one, 1, names),),
        doubts_of=two,
    )


def test_names_and_paths_of_any_kind_are_text_and_nothing_else() -> None:
    page = report_page(hostile_report(HOSTILE))
    check_that_nothing_is_run_or_fetched(Page(page))
    assert b"<script" not in page and b"onerror=alert(1)>" not in page
    assert HOSTILE[0] in "".join(Page(page).seen)


@given(any_text(min_size=1, max_size=40), any_text(min_size=1, max_size=40))
def test_no_text_whatever_becomes_markup(one: str, two: str) -> None:
    page = Page(report_page(hostile_report((one, two))))
    check_that_nothing_is_run_or_fetched(page)
    other = Page(report_page(hostile_report(("one", "two" if one != two else "one"))))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in other.elements]


def test_the_policy_lets_in_nothing_but_the_pages_own_style_and_pictures() -> None:
    page = Page(report_page(rich_report()))
    (policy,) = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    own = base64.b64encode(hashlib.sha256(page.style.encode("utf-8")).digest()).decode("ascii")
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{own}'; base-uri 'none'; form-action 'none'"
    )


def test_the_page_can_be_read_by_those_who_do_not_see_it() -> None:
    page = Page(report_page(rich_report()))
    assert len(page.all("caption")) == len(page.all("table")) >= 8
    assert all(image["alt"] for image in page.all("img"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))
    assert all(cell["scope"] for cell in page.all("th"))
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == 1
    anchors = {link["href"] for link in page.all("a")}
    assert (
        anchors == {f"#{anchor}" for anchor, _, _ in SECTIONS} == {f"#{h['id']}" for h in page.all("h2") if "id" in h}
    )


def test_each_figure_has_its_numbers_in_a_table() -> None:
    report = rich_report()
    seen = "\n".join(Page(report_page(report)).seen)
    assert report.quality is not None and report.days is not None
    for caption in ("Accuracy by number of labels", "How sure and how right", "Labels by day", "Labels by site"):
        assert caption in seen
    numbers = [f"{100 * point.accuracy:.1f} %" for point in report.curve if point.accuracy is not None]
    numbers += [f"{100 * found.right:.1f} %" for found in report.quality.bins]
    numbers += [f"{count:,}" for _, count in report.days.counts]
    assert all(number in seen for number in numbers)


def test_a_dash_is_what_was_not_measured_and_nothing_else() -> None:
    truth, columns = ("a", "a", "b"), np.array([1, 1, 2])
    measured = Measured(np.arange(3), truth, ("a", "b", "c"), np.eye(3, dtype=np.float32)[columns], "")
    seen = [cell for cell in Page(report_page(Report("x", quality=quality_of(measured, [], {})))).seen if cell.strip()]
    first = seen.index("Labels", seen.index("Classes")) + 1
    assert seen[first : first + 21] == [
        *("a", "–", "0.0 %", "0.0 %", "2", "0", "0"),
        *("b", "0.0 %", "0.0 %", "0.0 %", "1", "2", "0"),
        *("c", "0.0 %", "–", "–", "0", "1", "0"),
    ]


def test_of_a_long_path_the_end_is_there() -> None:
    path = "/".join(["a folder with a long name"] * 12) + "/IMG_0042.JPG"
    report = Report("x", worst=(Example(PNG, 1, 1, path, "a", "b", 0.9),), doubts=(Doubt(path, "a", "b", 0.9),))
    assert "".join(Page(report_page(report)).seen).count(path) == 2


def test_an_empty_report_says_why_each_part_is_empty() -> None:
    why = tuple((anchor, f"No {anchor} & yet.") for anchor, _, _ in SECTIONS)
    seen = "\n".join(Page(report_page(Report(title="season", why=why))).seen)
    assert all(text in seen for _, text in why)


@pytest.mark.parametrize("n", [2, MOST_CLASSES, MOST_CLASSES + 1, 90])
def test_of_many_classes_those_with_few_images_are_counted_together(n: int) -> None:
    rng = np.random.default_rng(n)
    names = tuple(f"class {i:02d}" for i in range(n))
    truth = tuple(names[i] for i in rng.integers(0, n, 500))
    proba = rng.dirichlet(np.ones(n), 500).astype(np.float32)
    quality = quality_of(Measured(np.arange(500), truth, names, proba, "made up"), names, {})
    page = report_page(replace(rich_report(), quality=quality)).decode("utf-8")
    matrix = page.partition('<table class="matrix">')[2].partition("</table>")[0]
    counts = [int(cell.replace(",", "")) for cell in re.findall(r"<td[^>]*>([0-9,]+)</td>", matrix)]
    assert sum(counts) == 500
    assert matrix.count('scope="row"') == min(len(quality.classes), MOST_CLASSES)
    assert (OTHERS in matrix) == (len(quality.classes) > MOST_CLASSES)


def test_one_point_and_one_day_are_drawn_too() -> None:
    report = rich_report()
    assert report.days is not None
    few = replace(
        report,
        curve=(CurvePoint(0, 0.5, 0.4),),
        best=(),
        worst=(),
        days=replace(report.days, counts=(("2026-05-01", 1),)),
    )
    drawn = report_page(few).partition(b"</style>")[2]
    assert b"nan" not in drawn and b"inf" not in drawn


def test_the_same_report_gives_the_same_bytes() -> None:
    assert report_page(rich_report()) == report_page(rich_report())


def test_quality_is_what_counting_one_by_one_gives() -> None:
    rng = np.random.default_rng(4)
    truth = tuple("abz"[i] for i in rng.integers(0, 3, 80))
    proba = rng.dirichlet(np.ones(3), 80).astype(np.float32)
    measured = Measured(np.arange(80), truth, ("a", "b", "c"), proba, "")
    quality = quality_of(measured, ["a", "b", "c"], {"a": 7})
    predicted = ["abc"[int(row.argmax())] for row in proba]
    assert quality.accuracy == pytest.approx(np.mean([t == p for t, p in zip(truth, predicted, strict=True)]))
    assert [one.name for one in quality.classes] == ["a", "b", "c", "z"] and quality.classes[0].labels == 7
    for i, row in enumerate(quality.classes):
        for j, column in enumerate(quality.classes):
            pairs = [(t, p) for t, p in zip(truth, predicted, strict=True) if (t, p) == (row.name, column.name)]
            assert quality.matrix[i][j] == len(pairs)
    assert sum(found.images for found in quality.bins) == 80
    error = sum(found.images * abs(found.sure - found.right) for found in quality.bins) / 80
    assert error == pytest.approx(quality.error, abs=1e-6)
    for found in quality.bins:
        assert found.low - 1e-6 <= found.sure <= found.high + 1e-6
