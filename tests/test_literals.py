"""Python literals are read exactly as ``ast.literal_eval`` reads them, or not at all."""

import ast
import os
import warnings
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leekfanout.documents import literals
from leekfanout.documents.literals import NotALiteralError, read
from tests.event_strategies import literal_values, spoiled_texts

EXAMPLES = int(os.environ.get("LEEKFANOUT_TEST_EXAMPLES", "300"))


def evaluated(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.literal_eval(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise NotALiteralError from None


def outcome(read_it: Any, text: str) -> str:
    """What comes of a text; a repr also tells types, signs of zero and the order of sets."""
    try:
        return repr(read_it(text))
    except NotALiteralError:
        return "not a literal"


@pytest.mark.parametrize(
    "text",
    [
        "(1, 'a', None, True, False)",
        "(1,)",
        "(1)",
        "(,)",
        "()",
        "( )",
        "(1,2,)",
        "(1,,)",
        "(,1)",
        "[]",
        "[1,]",
        "[,]",
        "{}",
        "{'a': 1,}",
        "{'a': {'b': [None, {'c': -1.5e3}]}}",
        "{'a': 1, 'a': 2}",
        "{1: 2}",
        "{'a': (1, 2)}",
        "((1, 2), [3])",
        "([(1)],)",
        "{'a', 'b'}",
        "{[]}",
        "{[]: 1}",
        "set()",
        "set ( )",
        "frozenset()",
        "1, 2",
        "1",
        "-1",
        "- 1",
        "--1",
        "-True",
        "+1",
        "-0",
        "-0.0",
        "01",
        "1_000",
        "0x1F",
        "0o17",
        "0b1",
        "1.",
        ".5",
        "1e5",
        "1E400",
        "-1e400",
        "1e-400",
        "3+4j",
        "(3+4j)",
        "-1-2j",
        "1+2",
        "1j+1",
        "18446744073709551615",
        "18446744073709551616",
        "[123456789012345678]",
        "[1234567890123456789]",
        "[-9223372036854775809]",
        "-9999999999999999999",
        "(-9999999999999999999,)",
        "[12345678901234567890123]",
        "None",
        "null",
        "true",
        "[null]",
        "[None, NoneNone]",
        "[1None]",
        "[NaN]",
        "[nan]",
        "[inf]",
        "...",
        "(1, ...)",
        "Ellipsis",
        "'a'",
        "'a' 'b'",
        "['a''b']",
        "['''a''']",
        "'''a''b\\''''",
        '"""a""b\\""""',
        "['''a'b\n''']",
        '["""a"b\n"""]',
        "''''",
        "['it\"s']",
        '["it\'s"]',
        "['a', \"it's\", 'b']",
        "['a\" , \"b']",
        '{"a": "b"}',
        "[b'a', b\"\\xff\", rb'\\d', Rb'x', u'x', ur'x', f'x', bu'x']",
        "[b'a']",
        "['a' b'b']",
        "[u'x', r'\\d']",
        "[f'{1}']",
        "['\\n\\r\\t\\\\']",
        "['\\'']",
        "['\\\\']",
        "['\\\\\\'']",
        "['\\\\', 'x']",
        "['\\x41\\u2603\\U0001f600\\101\\N{BULLET}\\/\\b\\f\\d']",
        "['\\ud800']",
        "['\\ud83d\\ude00']",
        "['\\u12']",
        "['\\",
        "['a\\\nb']",
        "['a\nb']",
        "['a\tb']",
        "['\x00']",
        "['\x7f\x85\u2028é☃😀']",
        "['\ud800']",
        "[1, # one\n 2]",
        "# nothing",
        "[1 # ']",
        "[\\\n1]",
        "[1]\\\n",
        "[1]\n",
        "\n[1]",
        "  [1]  ",
        " \t(1,)",
        "\x0c[1]",
        "[1\u00a0]",
        "[1] [2]",
        "[1]]",
        "[(])",
        "{'a'}",
        "{'a': }",
        "{'a' 1}",
        "{**{}}",
        "[*[1]]",
        "lambda: 1",
        "[not 1]",
        "[1 if 1 else 2]",
        "[1if 1else 2]",
        "[x for x in ()]",
        "a.b",
        "f()",
        "__import__('os')",
        "(1).real",
        "[1][0]",
        "{'a': 1}['a']",
        "'%s' % 1",
        "2 ** 3",
        "(a := 1)",
        "<User: 7>",
        "(<User: 7>, 1)",
        "(datetime.datetime(2020, 1, 1), 1)",
        "",
        "(",
        ")",
        "'",
        '"',
        "\\",
        ")(",
        "[",
        "(1, 2",
        "('a', ')",
        "\ufeff[1]",
        "\uff10",
        "[\u0661]",
    ],
)
def test_a_text_is_read_as_python_reads_it(text: str) -> None:
    assert outcome(read, text) == outcome(evaluated, text)


@settings(max_examples=EXAMPLES, deadline=None)
@given(literal_values())
def test_a_repr_is_read_as_python_reads_it(value: Any) -> None:
    assert outcome(read, repr(value)) == outcome(evaluated, repr(value))


@settings(max_examples=EXAMPLES, deadline=None)
@given(spoiled_texts())
@example("['a\\', 'b']")
def test_a_text_that_is_almost_a_literal_is_read_as_python_reads_it(text: str) -> None:
    assert outcome(read, text) == outcome(evaluated, text)


@pytest.mark.parametrize("brackets", ["[]", "{}", "()"])
def test_as_many_brackets_may_be_open_as_python_allows(brackets: str) -> None:
    opening = "{'a':" if brackets == "{}" else brackets[0]
    closing = ",)" if brackets == "()" else brackets[1]
    for depth in (199, 200, 201, 1_000, 100_000):
        text = opening * (depth - 1) + brackets + closing * (depth - 1)
        assert (outcome(read, text) == "not a literal") is (depth > 200)


def test_many_brackets_that_are_not_nested_are_read() -> None:
    # Too many for Python's parser to be given them.
    for value in ([[], {}] * 10_000, [{"a": [1]}] * 5_000):
        assert read(repr(value)) == value
    assert read("1" + " " * 300) == 1


def test_what_is_respelled_may_be_nested_as_deeply() -> None:
    # Of more tokens than Python's parser is given.
    inner = "1," * 20_000 + "1"
    value = read("[" * 200 + inner + "]" * 200)

    for _ in range(199):
        (value,) = value
    assert value == [1] * 20_001
    assert outcome(read, "[" * 201 + inner + "]" * 201) == "not a literal"


def test_long_strings_are_read() -> None:
    for text in ("x" * 10_000_000, "é" * 1_000_000, "\n" * 1_000_000, "'" * 1_000_000 + '"'):
        assert read(repr((text,))) == (text,)


def test_more_than_pythons_parser_is_given_is_not_read_but_respelled_it_is() -> None:
    few, many = 5_000, 60_000
    assert read("[" + "(),1," * 1_000 + "]") == [(), 1] * 1_000
    assert outcome(read, "[" + "()," * few + "]") == "not a literal"
    assert read(repr([1] * 30_000)) == [1] * 30_000
    assert outcome(read, repr([1] * many)) == "not a literal"
    assert read(repr(["x" * 20] * 30_000)) == ["x" * 20] * 30_000
    assert outcome(read, repr(["x"] * many)) == "not a literal"


def test_characters_outside_of_strings_are_respelled_up_to_a_bound() -> None:
    def of(length: int) -> str:
        ones = "1," * 20_000
        return f"[{ones}{'1':<{length - len(ones) - 2}}]"

    assert read(of(literals.MAX_RESPELLED)) == [1] * 20_001
    assert outcome(read, of(literals.MAX_RESPELLED + 1)) == "not a literal"


def test_numbers_that_python_cant_write_are_not_read() -> None:
    assert read("0x" + "f" * 3_000) == 16**3_000 - 1
    assert outcome(read, "0x" + "f" * 4_000) == "not a literal"
    assert outcome(read, "{1: [0x" + "f" * 1_000_000 + "]}") == "not a literal"
    assert outcome(read, "9" * 5_000) == "not a literal"


def test_an_escape_that_python_doesnt_know_is_read_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read("['\\d', 1]") == ["\\d", 1]


def test_nothing_but_literals_reaches_pythons_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(literals.ast, "literal_eval", asked.append)

    for text in (
        "(<User: 7>, 1)",
        "(datetime(2020, 1, 1),)",
        "1*2",
        "[x]",
        "a.b",
        "1 or 2",
        "'a' % 1",
    ):
        assert outcome(read, text) == "not a literal"

    assert asked == []


@pytest.mark.parametrize(
    "value",
    [
        (1,),
        (1, -2.5),
        ("a", None, True, False),
        (None,),
        (True,),
        (False,),
        ('it"s', "a\nb\\", ""),
        ([1, {"a": [None, {"b": True}]}],),
        [],
        ["a", 1e300],
        {"a": None, "b": {"c": [False, "None (e)"]}},
        {},
        "a",
        (123456789012345678,),
    ],
)
def test_common_shapes_are_read_without_pythons_parser(
    monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    monkeypatch.setattr(literals.ast, "literal_eval", lambda _: pytest.fail("was asked"))

    assert read(repr(value)) == value


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_read_or_is_not_a_literal(text: str) -> None:
    assert outcome(read, text) == outcome(evaluated, text)
