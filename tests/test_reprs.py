"""The contract's rules for ``args`` and ``kwargs``, and the bounds on what is hostile in them."""

import json
from typing import Any

import pytest

from leekfanout.documents import json_text, reprs
from leekfanout.documents.reprs import args_items, flatten
from tests.event_factory import document_of, task

# args


def test_each_of_the_first_ten_arguments_stands_in_a_field_of_its_own() -> None:
    document = document_of(task("sent", args=repr(tuple(range(12)))))

    assert {key: value for key, value in document.items() if key.startswith("args_")} == {
        f"args_{index}": str(index) for index in range(10)
    }


@pytest.mark.parametrize("text", ["", "()", "( )", "[]"])
def test_no_arguments_give_no_fields(text: str) -> None:
    document = document_of(task("sent", args=text))

    assert document["args"] == text
    assert "args_0" not in document


def test_an_argument_is_what_str_makes_of_it() -> None:
    text = repr((None, True, 1.0, "it's", b"b", [1, ("x",)], {"a": None}, 3 + 4j, {5}))

    assert args_items(text) == [
        "None",
        "True",
        "1.0",
        "it's",
        "b'b'",
        "[1, ('x',)]",
        "{'a': None}",
        "(3+4j)",
        "{5}",
    ]
    assert args_items("(1, ...)") == ["1", "Ellipsis"]


def test_an_argument_is_cut_at_256_characters() -> None:
    assert args_items(repr(("é" * 256, "x" * 257, ["y" * 300]))) == [
        "é" * 256,
        "x" * 256,
        "['" + "y" * 254,
    ]


def test_a_list_counts_as_the_arguments_too() -> None:
    assert args_items("[1, 'a']") == ["1", "a"]


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("(1)", "1"),
        ("'a'", "a"),
        ("{'a': 1}", "{'a': 1}"),
        ("{7}", "{7}"),
        ("None", "None"),
        ("'" + "x" * 300 + "'", "x" * 256),
    ],
)
def test_a_literal_that_is_no_tuple_or_list_counts_as_one_argument(text: str, item: str) -> None:
    assert args_items(text) == [item]


@pytest.mark.parametrize(
    "text",
    ["(<User: 7>, 1)", "(True, Ellipsis)", "(1, 2", "nothing", " ", "(" * 1_000 + ")" * 1_000],
)
def test_arguments_that_are_no_literal_stand_raw_in_the_first_field(text: str) -> None:
    assert args_items(text) == [text[:256]]


# kwargs


@pytest.mark.parametrize(
    "text",
    ["", "None", "[1, 2]", "'a'", "{1, 2}", "{'o': <Obj at 0x1>}", "{'a': 1", "nothing", "5"],
)
def test_anything_but_a_mapping_is_flattened_to_nothing(text: str) -> None:
    document = document_of(task("sent", kwargs=text))

    assert document["kwargs"] == text
    assert document["kwargs_flattened"] == {}


def test_keys_are_joined_with_dots_and_items_of_lists_by_their_index() -> None:
    text = "{'a': {'b': [1, {'c': 2}], 'd.e': 3}, 'f': 4}"

    assert flatten(text) == {"a.b.0": 1, "a.b.1.c": 2, "a.d.e": 3, "f": 4}


def test_json_is_read_as_json() -> None:
    text = '{"a": {"b": [1, "two", null, true, "\\/"]}, "c": 1.5}'

    assert flatten(text) == {
        "a.b.0": 1,
        "a.b.1": "two",
        "a.b.2": None,
        "a.b.3": True,
        "a.b.4": "/",
        "c": 1.5,
    }
    assert flatten('  {"a": 1} ') == {"a": 1}
    assert flatten("{ }") == {}


@pytest.mark.parametrize("value", [0, -1, 1.5, True, False, None])
def test_numbers_booleans_and_null_stay(value: Any) -> None:
    for text in (repr({"a": value}), json.dumps({"a": value})):
        assert flatten(text) == {"a": value}
        assert type(flatten(text)["a"]) is type(value)


@pytest.mark.parametrize("value", [2**63, 2**64, -(2**63) - 1, 10**4_000])
def test_whole_numbers_of_any_size_stay_exact(value: int) -> None:
    for text in (f"{{'a': {value}}}", f'{{"a": {value}}}', f'{{"a": {{"b": [{value}]}}}}'):
        assert list(document_of(task("sent", kwargs=text))["kwargs_flattened"].values()) == [value]


@pytest.mark.parametrize(
    ("text", "leaf"),
    [
        ('{"a": NaN}', "nan"),
        ('{"a": Infinity}', "inf"),
        ('{"a": -1e999}', "-inf"),
        ("{'a': 1e999}", "inf"),
        ("{'a': 3+4j}", "(3+4j)"),
        ("{'a': ...}", "<ELLIPSIS>"),
        ("{'a': b'abc\\xc3\\xa9\\xff'}", "abcé\ufffd"),
        ("{'a': {}}", "{}"),
        ("{'a': []}", "[]"),
        ("{'a': ()}", "[]"),
        ("{'a': set()}", "[]"),
        ('{"a": {}}', "{}"),
        ('{"a": []}', "[]"),
    ],
)
def test_other_values_become_text(text: str, leaf: str) -> None:
    assert flatten(text) == {"a": leaf}


def test_tuples_and_sets_count_as_lists() -> None:
    assert flatten("{'a': (1, {5}, ('x',))}") == {"a.0": 1, "a.1.0": 5, "a.2.0": "x"}


@pytest.mark.parametrize("key", ["1", "1.5", "None", "True", "(1, 'a')", "b'x'", "(3+4j)"])
def test_keys_go_through_str(key: str) -> None:
    assert flatten(f"{{{key}: {{{key}: 'v'}}}}") == {f"{key}.{key}": "v"}


def test_of_keys_that_become_the_same_path_the_last_counts() -> None:
    assert flatten("{1: 'a', '1': 'b'}") == {"1": "b"}
    assert flatten("{'a.b': 1, 'a': {'b': 2}}") == {"a.b": 2}
    assert flatten("{1: {'a': 1}, '1': {'b': 2}}") == {"1.a": 1, "1.b": 2}
    assert flatten('{"a": 1, "a": 2}') == {"a": 2}


def test_texts_are_cut_at_100_characters() -> None:
    long = {"a": "é" * 101, "b": ["x" * 101], "c": "y" * 100}

    for text in (repr(long), json.dumps(long)):
        assert flatten(text) == {"a": "é" * 100, "b.0": "x" * 100, "c": "y" * 100}


def test_bytes_are_cut_at_100_characters_after_decoding() -> None:
    four_bytes_each = ("😀" * 101).encode()
    bad_bytes = b"\xff" * 150

    assert flatten(repr({"a": four_bytes_each})) == {"a": "😀" * 100}
    assert flatten(repr({"a": bad_bytes})) == {"a": "\ufffd" * 100}
    assert flatten(repr({"a": b"x" + four_bytes_each})) == {"a": "x" + "😀" * 99}


def test_other_objects_are_cut_at_100_characters() -> None:
    huge = complex(1e200, 1e200)
    text = repr({"a": huge})
    assert flatten(text) == {"a": str(huge)[:100]}


def test_lists_are_cut_at_100_items() -> None:
    for text in (repr({"a": list(range(150))}), repr({"a": tuple(range(150))})):
        assert flatten(text) == {f"a.{index}": index for index in range(100)}
    assert len(flatten(repr({"a": set(range(150))}))) == 100
    assert len(flatten(json.dumps({"a": [[0] * 101] * 101}))) == 100 * 100


def test_mappings_are_not_cut() -> None:
    assert len(flatten(repr({f"k{index}": index for index in range(1_000)}))) == 1_000


def nested(depth: int, value: str) -> str:
    return "{'k': " * depth + value + "}" * depth


@pytest.mark.parametrize("value", ["5", "'five'", "None", "{}", "()"])
def test_twelve_keys_make_a_path_and_no_more(value: str) -> None:
    leaf = {"5": 5, "'five'": "five", "None": None, "{}": "{}", "()": "[]"}[value]
    as_json = {"5": "5", "'five'": '"five"', "None": "null", "{}": "{}", "()": "[]"}[value]
    path = ".".join("k" * 12)

    assert flatten(nested(12, value)) == {path: leaf}
    assert flatten(nested(13, value)) == {f"{path}.k": as_json}


def test_what_is_deeper_than_twelve_is_json_text_cut_and_converted_as_elsewhere() -> None:
    value = {
        "é☃": ["x" * 101, b"\xff", ..., 3 + 4j, None, True, 1.5, float("inf")],
        7: (1, {2}),
        "list": [0] * 101,
        "empty": [{}, (), set()],
    }
    path = ".".join("k" * 13)
    text = nested(13, repr(value).replace("inf", "1e999").replace("Ellipsis", "..."))

    assert json.loads(flatten(text)[path]) == {
        "é☃": ["x" * 100, "\ufffd", "<ELLIPSIS>", "(3+4j)", None, True, 1.5, "inf"],
        "7": [1, [2]],
        "list": [0] * 100,
        "empty": [{}, [], []],
    }
    assert '"é☃": ["xxx' in flatten(text)[path]


def test_items_of_lists_count_as_keys_of_a_path() -> None:
    path = ".".join("0" * 12)

    assert flatten("{'0': " + "[" * 12 + "'a'" + "]" * 12 + "}") == {f"{path}.0": '"a"'}
    assert flatten("{'0': " + "[" * 11 + "'a'" + "]" * 11 + "}") == {path: "a"}


def test_json_may_be_nested_as_deeply_as_python() -> None:
    for depth, is_read in [
        (199, True),
        (200, True),
        (201, False),
        (1_500, False),
        (100_000, False),
    ]:
        for text in (
            '{"k":' * (depth - 1) + "{}" + "}" * (depth - 1),
            '{"k":' + "[" * (depth - 1) + "]" * (depth - 1) + "}",
            nested(depth - 1, "()"),
        ):
            assert bool(flatten(text)) is is_read


# Bounds


@pytest.mark.parametrize(
    ("text", "paths", "room"),
    [
        ("{'a': 1, 'b': 'x'}", ["a", "b"], 2 * 25),
        ("{'key': {'a': None, 'b': {}}}", ["key.a", "key.b"], 25 + 2 * (25 + len("key."))),
        ("{'key': [1, 2]}", ["key.0", "key.1"], 25 + 2 * (25 + len("key."))),
    ],
)
def test_an_item_takes_room_for_the_path_above_it(
    monkeypatch: pytest.MonkeyPatch, text: str, paths: list[str], room: int
) -> None:
    monkeypatch.setattr(reprs, "MAX_ROOM", room)
    assert list(flatten(text)) == paths
    monkeypatch.setattr(reprs, "MAX_ROOM", room - 1)
    assert list(flatten(text)) == paths[:1]


@pytest.mark.parametrize(("value", "values"), [("7", 1), ("[7, 8]", 3), ("{'a': {'b': 7}}", 3)])
def test_each_value_in_json_text_takes_the_room_of_three_items_more(
    monkeypatch: pytest.MonkeyPatch, value: str, values: int
) -> None:
    text = nested(12, f"{{'a': 1, 'b': {value}}}")
    path = "k." * 12
    above = sum(25 + len("k.") * depth for depth in range(12))
    room = above + 2 * (25 + len(path)) + (1 + values) * 3 * 25

    monkeypatch.setattr(reprs, "MAX_ROOM", room)
    assert list(flatten(text)) == [f"{path}a", f"{path}b"]
    monkeypatch.setattr(reprs, "MAX_ROOM", room - 1)
    assert list(flatten(text)) == [f"{path}a"]


def test_paths_that_repeat_long_keys_end_when_the_room_is_used_up() -> None:
    text = json.dumps({"first": 1, "k" * 100_000: {f"{index}": index for index in range(20_000)}})

    flat = flatten(text)

    assert flat["first"] == 1
    assert 1 < len(flat) < 100
    assert sum(map(len, flat)) <= reprs.MAX_ROOM


def test_what_came_before_the_room_was_used_up_is_kept() -> None:
    key = "k" * 1_000

    flat = flatten(json.dumps({"first": 1, key: [[index] for index in range(100)]}))

    assert flat["first"] == 1
    assert (f"{key}.0.0" in flat, f"{key}.99.0" in flat) == (True, False)


@pytest.mark.parametrize("depth", [0, 12])
def test_a_huge_number_of_keys_ends_when_the_room_is_used_up(depth: int) -> None:
    keys = json.dumps({f"{index}": 1 for index in range(100_000)})
    text = '{"k":' * depth + keys + "}" * depth

    flat = flatten(text)

    assert 1_000 < len(flat) < 50_000
    assert sum(map(len, flat)) <= reprs.MAX_ROOM


def test_json_text_is_left_out_as_a_whole_when_the_room_is_used_up() -> None:
    keys = json.dumps({f"{index}": 1 for index in range(100_000)})

    flat = flatten('{"first": 1, "next": ' + '{"k":' * 12 + keys + "}" * 12 + "}")

    assert flat == {"first": 1}


def test_ten_thousand_keys_are_kept() -> None:
    value = {f"key-{index}": index for index in range(10_000)}

    assert flatten(json.dumps(value)) == value


def test_a_large_json_text_is_read_if_it_is_strict_json() -> None:
    filler = "x" * 100_000

    assert flatten(f'{{"a": 1, "b": "{filler}"}}') == {"a": 1, "b": "x" * 100}
    assert flatten(f'{{"a": NaN, "b": "{filler}"}}') == {}
    assert flatten(f'{{"a": {2**64}, "b": "{filler}"}}') == {"a": 2.0**64, "b": "x" * 100}


def test_a_json_text_is_large_from_a_length_on() -> None:
    def of(length: int) -> str:
        return f'{{"a": NaN, "b": "{"x" * (length - 19)}"}}'

    assert len(of(json_text.LARGE)) == json_text.LARGE
    assert flatten(of(json_text.LARGE - 1)) == {"a": "nan", "b": "x" * 100}
    assert flatten(of(json_text.LARGE)) == {}


def test_strict_json_is_read_without_pythons_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text.json, "loads", lambda _: pytest.fail("was asked"))

    assert flatten('{"a": {"b": [1, null]}}') == {"a.b.0": 1, "a.b.1": None}


def test_a_large_json_text_of_little_but_brackets_is_not_read() -> None:
    assert flatten('{"a": [' + "[]," * 60_000 + "1]}") == {}
    assert flatten('{"a": [' + "{}," * 60_000 + "1]}") == {}
    assert flatten('{"a": [' + "[],{}," * 30_000 + "1]}") == {}
    most = json_text.MAX_CONTAINERS - 2
    assert len(flatten('{"a": [' + "[]," * most + "1]}")) == 100
    assert flatten('{"a": [' + "[]," * (most + 1) + "1]}") == {}
