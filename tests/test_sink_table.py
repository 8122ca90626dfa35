"""The sink's table: what it remembers, counts and draws."""

from hypothesis import given
from hypothesis import strategies as st

from leekfanout.sink.sink_table import TASKS_MAX, Table, Task
from leekfanout.terminal.screen import Cell, columns, cut, width_of

HEADERS = {"x-leek-app-name": "shop", "x-leek-app-env": "qa"}


def task(task_id: str = "1", state: str = "SUCCEEDED", **more: object) -> dict[str, object]:
    return {"id": task_id, "kind": "task", "state": state, "events_count": 1, **more}


def test_a_tasks_documents_are_merged() -> None:
    merged = Task("shop-qa")
    merged.merge(task(state="STARTED", started_at=3, received_at=2, events_count=2, timestamp=3))
    merged.merge(task(state="QUEUED", queued_at=1, name="shop.pay", timestamp=1))
    assert (merged.state, merged.name, merged.events) == ("STARTED", "shop.pay", 3)
    merged.merge(
        task(state="RETRY", events=["RETRY", "STARTED", "RETRY"], retried_at=4, timestamp=4)
    )
    merged.merge(task(state="SUCCEEDED", succeeded_at=9, runtime=0.5, timestamp=9))
    merged.merge(task(state="RETRY", events=["RETRY"], retried_at=5, timestamp=10))
    assert (merged.state, merged.runtime_s) == ("SUCCEEDED", 0.5)
    assert merged.path() == "QUEUED → RECEIVED → STARTED → RETRY (3) → SUCCEEDED"


def test_the_table_remembers_a_bounded_number_of_tasks_and_counts_all() -> None:
    table = Table()
    for number in range(TASKS_MAX + 10):
        table.add([task(str(number)), {"id": "w", "kind": "worker", "state": "ONLINE"}], HEADERS, 0)
    figures = table.applications["shop-qa"]
    assert (figures.posts, figures.documents) == (TASKS_MAX + 10, 2 * (TASKS_MAX + 10))
    assert len(table.tasks) == TASKS_MAX
    assert table.states("shop-qa") == {"SUCCEEDED": TASKS_MAX}


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    table = Table()
    for second in range(100):
        table.add([task()] * 3, HEADERS, second)
    figures = table.applications["shop-qa"]
    assert figures.rate(100) == 3
    assert figures.rate(105) == 1.5
    assert figures.rate(200) == 0


@given(st.text(max_size=60), st.integers(min_value=0, max_value=40))
def test_a_cut_text_fits(text: str, width: int) -> None:
    assert width_of(cut(text, width)) <= width
    if width_of(text) <= width:
        assert cut(text, width) == text


@given(
    st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=1, max_size=5),
    st.integers(min_value=1, max_value=60),
)
def test_no_line_is_wider_than_the_terminal_or_commands_it(
    rows: list[tuple[str, str]], width: int
) -> None:
    cells = [[Cell(left), Cell(right, right=True)] for left, right in rows]
    for line in columns(cells, (20, 20), width, colour=False):
        assert width_of(line) <= width
        assert line.isprintable()
