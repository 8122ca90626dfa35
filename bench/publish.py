"""Put the results of a run into the README and the pages of docs/, with the plots.

    python -m bench.publish [RESULTS.json]

Without a file, the newest results are taken. What stands between ``<!-- figures: NAME -->`` and
``<!-- end -->`` is replaced; NAME is a part's, or one of those that :func:`filled` adds.
"""

import argparse
import re
from pathlib import Path

from bench import plots, tables, used_today
from bench.plan import plan
from bench.results import FOLDER, Results, load
from bench.verdict import stub_note, verdict

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (DOCS.parent / "README.md", *sorted(DOCS.glob("*.md")))
COMPUTED_FOR = 1_000
"""Subscriptions that nobody has measured so many of."""
REFERENCE = DOCS / "benchmark.json"
IMAGES = DOCS / "images"
_FIGURES = re.compile(r"(<!-- figures: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, results: Results) -> str:
    """Return the page with the figures of ``results``."""
    texts = {
        part.name: tables.of_part(part, results).markdown()
        if results.of(part.name)
        else "Not measured in this run."
        for part in plan(quick=False)
    }
    texts["targets"] = tables.of_verdict(verdict(results)).markdown()
    texts["machine"] = _machine(results)
    texts["stub note"] = stub_note(results)
    texts["used today"] = used_today.table(results).markdown()
    texts["computed"] = _computed(results)
    return _FIGURES.sub(lambda found: f"{found[1]}{texts[found[2]]}\n{found[3]}", page)


def _machine(results: Results) -> str:
    about = results.about
    libraries = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"Measured on {about['cores']} cores ({about['processor']}), {about['system']}, "
        f"Python {about['python']}, {libraries}; load average at the start {about['load_average']}."
    )


def _computed(results: Results) -> str:
    names = ("own_memory_mb", "cores_per_subscription", "threads", "descriptors")
    each = [results.figure("start", "100 subscriptions", name) for name in names]
    if None in each:
        return "Not measured in this run."
    own_memory_mb, cores, threads, descriptors = (
        figure * COMPUTED_FOR for figure in each if figure is not None
    )
    return (
        f"Computed from that, for {COMPUTED_FOR:,} idle subscriptions: {own_memory_mb / 1e3:.0f} GB of "
        f"memory, {cores:.0%} of a core, {threads:,.0f} threads, {descriptors:,.0f} descriptors."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.publish", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", metavar="RESULTS.json")
    path = parser.parse_args().results or max(FOLDER.glob("*.json"))
    results = load(path)
    results.save(REFERENCE)
    plots.draw(results, IMAGES)
    for page in PAGES:
        before = page.read_text()
        if (after := filled(before, results)) != before:
            page.write_text(after)
            print(f"{path} is in {page.relative_to(DOCS.parent)} now.")


if __name__ == "__main__":
    main()
