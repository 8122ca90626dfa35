"""``python -m bench``: measure, show, and keep what was found."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from bench import tables
from bench.forked import BenchError
from bench.plan import Case, Part, plan
from bench.results import BUSY_LOAD, FOLDER, Results, machine
from bench.rig import Rig
from bench.tables import Table
from bench.verdict import stub_note, verdict

TABLE_COLUMNS = 130


def main() -> int:
    args = _arguments()
    console = console_for_tables()
    parts = _chosen(plan(args.quick), args.only)
    about = {**machine(), "quick": args.quick}
    _warn_if_busy(console)
    results = Results(about)
    try:
        measure(parts, results, console)
    except KeyboardInterrupt:
        console.print("Interrupted; this is what was measured until then.")
    finally:
        if results.found:
            _keep(results, args.out, console)
    console.print(_rich(tables.of_verdict(verdict(results))))
    console.print(stub_note(results))
    return 1 if any(found.error for found in results.found.values()) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="only what has a target; 2 minutes")
    parser.add_argument(
        "--only",
        metavar="PART,…",
        help="only these parts: " + ", ".join(part.name for part in plan(quick=False)),
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=FOLDER / time.strftime("%Y%m%d-%H%M%S.json"),
        metavar="FILE",
        help="where to write the results (default: %(default)s)",
    )
    return parser.parse_args()


def console_for_tables() -> Console:
    """Return a console; where it is no terminal, wide enough that cells aren't broken."""
    return Console() if sys.stdout.isatty() else Console(width=TABLE_COLUMNS)


def _chosen(parts: Sequence[Part], only: str | None) -> list[Part]:
    if only is None:
        return list(parts)
    names = [name.strip() for name in only.split(",")]
    unknown = set(names) - {part.name for part in parts}
    if unknown:
        sys.exit(f"There is no part {', '.join(sorted(unknown))} in this plan.")
    return [part for part in parts if part.name in names]


def _warn_if_busy(console: Console) -> None:
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        console.print(
            f"[yellow]Something else runs on this machine (load average {load:.1f}): "
            "take these figures with caution."
        )


def measure(parts: Sequence[Part], results: Results, console: Console) -> None:
    """Measure all cases of the parts, and show each part when it is done."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        # A thread that refreshes would make every fork a risk, and take time from what is measured.
        auto_refresh=False,
        transient=True,
    )
    total = sum(part.rounds * len(part.cases) for part in parts)
    with Rig() as rig, progress:
        task = progress.add_task("", total=total)
        for part in parts:
            for number in range(part.rounds):
                for case in part.cases:
                    progress.update(
                        task, description=f"{part.name}: {case.name} ({number + 1}/{part.rounds})"
                    )
                    progress.refresh()
                    _measure(part, case, rig, results)
                    progress.advance(task)
            console.print(_rich(tables.of_part(part, results)))
            for found in results.of(part.name):
                if found.error:
                    console.print(f"{part.name}: {found.name}: {found.error}", markup=False)


def _measure(part: Part, case: Case, rig: Rig, results: Results) -> None:
    found = results.case(part, case)
    if found.error:
        return
    began = time.monotonic()
    try:
        figures = case.measure(rig, **case.settings)
    except BenchError as error:
        found.error = str(error)
    else:
        found.rounds.append({**figures, "took_s": round(time.monotonic() - began, 1)})


def _keep(results: Results, path: Path, console: Console) -> None:
    # As late as this, so that no process that was measured carries it along.
    from bench import plots

    results.save(path)
    drawn = plots.draw(results, path.with_suffix(""))
    console.print(f"Results: {path}" + (f", plots: {path.with_suffix('')}/" if drawn else ""))


def _rich(table: Table) -> RichTable:
    rich = RichTable(title=table.title, title_justify="left")
    for column in table.columns:
        rich.add_column(column, justify="left" if column == table.columns[0] else "right")
    for row in table.rows:
        rich.add_row(*row)
    return rich


if __name__ == "__main__":
    sys.exit(main())
