"""Plots are well-formed SVG that shows what it was given, whatever the numbers."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.pages.charts import Curve, curves, intervals

SVG = "{http://www.w3.org/2000/svg}"


def test_a_curve_goes_where_its_numbers_are() -> None:
    drawn = curves([Curve("a < b", (0, 1), (0, 0.5), dots=True), Curve("ideal", (0, 1), (0, 1), dashed=True)], "x", "y")
    root = ElementTree.fromstring(drawn)  # noqa: S314  our own text
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter(f"{SVG}circle")]
    ideal = [
        tuple(map(float, point.split(","))) for point in list(root.iter(f"{SVG}polyline"))[1].attrib["points"].split()
    ]
    assert dots[0] == pytest.approx(ideal[0])
    assert dots[1][0] == pytest.approx(ideal[1][0])
    assert dots[1][1] == pytest.approx((ideal[0][1] + ideal[1][1]) / 2)  # half-way up
    assert "a < b" in [text.text for text in root.iter(f"{SVG}text")]


@given(
    st.lists(
        st.tuples(st.text("ab<&>'", max_size=8), st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5)), max_size=6
    )
)
def test_every_interval_is_drawn_inside_the_plot(rows: list[tuple[str, float, float, float]]) -> None:
    drawn = intervals([(name, value, value - low, value + high) for name, value, low, high in rows], "accuracy")
    root = ElementTree.fromstring(drawn)  # noqa: S314  our own text
    dots = list(root.iter(f"{SVG}circle"))
    assert len(dots) == len(rows)
    assert all(0 <= float(dot.attrib["cx"]) <= float(root.attrib["width"]) for dot in dots)
