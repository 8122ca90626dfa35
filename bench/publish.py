"""Put the results of a run into docs/performance.md, with its plots, and into the README.

    python -m bench.publish [RESULTS.json]

Without a file, the newest results are taken. In both pages, what stands between
``<!-- figures: NAME -->`` and ``<!-- end -->`` is replaced; NAME is a part's, ``targets``, ``machine``,
``stub note`` or ``used today``.
"""

import argparse
import re
from pathlib import Path

from bench import plots, tables, used_today
from bench.plan import plan
from bench.results import FOLDER, Results, load
from bench.verdict import stub_note, verdict

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (DOCS / "performance.md", DOCS.parent / "README.md")
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
    return _FIGURES.sub(lambda found: f"{found[1]}{texts[found[2]]}\n{found[3]}", page)


def _machine(results: Results) -> str:
    about = results.about
    libraries = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"Measured on {about['cores']} cores ({about['processor']}), {about['system']}, "
        f"Python {about['python']}, {libraries}; load average at the start {about['load_average']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.publish", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", metavar="RESULTS.json")
    path = parser.parse_args().results or max(FOLDER.glob("*.json"))
    results = load(path)
    results.save(REFERENCE)
    plots.draw(results, IMAGES)
    for page in PAGES:
        page.write_text(filled(page.read_text(), results))
        print(f"{path} is in {page.relative_to(DOCS.parent)} now.")


if __name__ == "__main__":
    main()
