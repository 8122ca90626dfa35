"""The steps of the core machine: what may happen, how often, and with which arguments."""

from typing import NamedTuple

from hypothesis import strategies as st

from tests.core_model import Accounts, ModelApi

SENDERS = 2
MOODS = list(ModelApi(Accounts()).moods)
KINDS = ["good", "good", "good", "merged", "bad", "refused", "useless"]
"""Kinds of events; a task's uuid begins with its kind."""


class Step(NamedTuple):
    """One call of a machine's method."""

    name: str
    arguments: tuple[object, ...]


ARGUMENTS: dict[str, tuple[int, st.SearchStrategy[tuple[object, ...]]]] = {
    "workers_publish": (
        3,
        st.tuples(
            st.lists(
                # Messages of one event, so that a batch has several, and lists that don't fit into one.
                st.lists(st.sampled_from(KINDS), min_size=1, max_size=1)
                | st.lists(st.sampled_from(KINDS), max_size=9),
                min_size=1,
                max_size=4,
            ),
        ),
    ),
    "much_happens": (
        8,
        st.tuples(
            st.integers(1, 3),
            st.integers(1, 10),
            st.booleans(),
            st.integers(0, SENDERS),
            st.booleans(),
        ),
    ),
    "little_happens": (
        4,
        st.tuples(
            st.sampled_from(
                ["read", "close", "settle", "turn", "take", "answer", "broker", "connect", "time"]
            ),
            st.integers(1, 12),
        ),
    ),
    "api_and_disk_change": (
        2,
        st.tuples(
            st.sampled_from(["good"] * 8 + MOODS),
            st.sampled_from([True, True, True, False]),
            st.sampled_from([False, False, False, True]),
        ),
    ),
    "trouble_comes": (
        2,
        st.tuples(
            st.sampled_from(["cut", "cut at the next use", "hand back", "hand back"] * 2 + ["end"]),
            st.integers(0, 12),
        ),
    ),
}
"""For each kind of step its weight, and what it is called with."""

STEPS = st.sampled_from(
    [name for name, (weight, _) in ARGUMENTS.items() for _ in range(weight)]
).flatmap(lambda name: st.builds(Step, st.just(name), ARGUMENTS[name][1]))
