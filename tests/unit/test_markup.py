from __future__ import annotations

from device_sim.markup import Html, joined, table, tag


def test_text_becomes_markup_only_by_escaping():
    assert tag("p", "<b>&'\"") == "<p>&lt;b&gt;&amp;&#x27;&quot;</p>"
    assert tag("p", tag("b", "x"), " < y") == "<p><b>x</b> &lt; y</p>"
    assert joined(["a<", Html("<br>")]) == "a&lt;<br>"


def test_attributes_are_escaped_and_named_as_in_html():
    assert tag("p", class_="a", http_equiv='"><x') == '<p class="a" http-equiv="&quot;&gt;&lt;x"></p>'


def test_void_elements_are_not_closed():
    assert tag("img", src="data:,") == '<img src="data:,">'


def test_markup_is_not_escaped_twice_and_text_loses_control_characters():
    once = Html.of("a&b\x00")
    assert once == "a&amp;b�"
    assert Html.of(once) is once


def test_the_first_cell_of_a_row_heads_it():
    made = table(("A", "B"), [("x", "<1>")], class_="c")
    assert made == (
        '<table class="c"><thead><tr><th scope="col">A</th><th scope="col">B</th></tr></thead>'
        '<tbody><tr><th scope="row">x</th><td>&lt;1&gt;</td></tr></tbody></table>'
    )
