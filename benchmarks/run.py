"""Measures fapilog and its peers on this machine, and prints the table of figures.

    python benchmarks/run.py [--quick] [--only SCENARIO]... [--json FILE] [--repeats N]

Exits with 0 even if figures miss their limits, and with 1 if a scenario breaks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

from figures import FIGURES, SCENARIOS, Figure, Metric
from measure import BrokenScenarioError, Measured, measure

HEADINGS = ("figure", "fapilog", "peer", "its value", "ratio", "must", "aim", "reached")


def say(text: str) -> None:
    """Print progress to stderr, so stdout has only the table."""
    print(f"  {text}", file=sys.stderr, flush=True)


def values(runs: list[dict[str, Any]], metric: Metric) -> list[float]:
    return [run[metric.key] * metric.scale for run in runs]


def spread(metric: Metric, samples: list[float]) -> str:
    """Return the median and the range, with three significant digits or whole numbers."""

    def short(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    median = statistics.median(samples)
    return f"{short(median)} {metric.unit} ({short(min(samples))}–{short(max(samples))})"


def row(figure: Figure, results: dict[str, Measured]) -> tuple[list[str], dict[str, Any]]:
    runs = results[figure.scenario]
    ours, theirs = values(runs[figure.ours], figure.metric), []
    median, ratio, unit = statistics.median(ours), None, f" {figure.metric.unit}"
    if figure.peer is not None:
        theirs = values(runs[figure.peer], figure.against or figure.metric)
        ratio, unit = median / statistics.median(theirs), ""
    met = figure.met(median if ratio is None else ratio)
    sign = "≥" if figure.metric.higher else "≤"
    cells = [
        figure.name,
        spread(figure.metric, ours),
        "" if figure.peer in {figure.ours, None} else figure.peer,
        spread(figure.metric, theirs) if theirs else "",
        "" if ratio is None else f"{ratio:.3g}",
        f"{sign} {figure.must:g}{unit}" if figure.must else "",
        f"{sign} {figure.aim:g}{unit}" if figure.aim else "",
        {True: "yes", False: "NO", None: ""}[met],
    ]
    kept = {"figure": figure.name, "peer": figure.peer, "ours": ours, "theirs": theirs}
    return cells, {**kept, "ratio": ratio, "must": figure.must, "aim": figure.aim, "met": met}


def table(headings: tuple[str, ...], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Any) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(headings), line("-" * width for width in widths), *map(line, rows)])


def machine() -> str:
    load = os.getloadavg()[0]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    system = f"{platform.system()} {platform.machine()}"
    return f"{python}, {system}, {os.cpu_count()} cores, load {load:.1f}"


def heavy(results: dict[str, Measured]) -> str:
    runs = results["import_time"]["fapilog"]
    return ", ".join(sorted({module for run in runs for module in run["heavy"]})) or "none"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter runs, fewer repeats")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="run this scenario")
    parser.add_argument("--repeats", type=int, help="processes per contestant")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    results: dict[str, Measured] = {}
    broken: list[str] = []
    before = machine()
    for name in arguments.only or SCENARIOS:
        scenario = SCENARIOS[name]
        options = {**scenario.options, **(scenario.quick if arguments.quick else {})}
        repeats = arguments.repeats or (
            max(2, scenario.repeats // 2) if arguments.quick else scenario.repeats
        )
        try:
            results[name] = measure(name, scenario, options, repeats, say)
        except BrokenScenarioError as error:
            broken.append(name)
            say(str(error))
    rows = [row(figure, results) for figure in FIGURES if figure.scenario in results]
    print(f"{before}\n\n{table(HEADINGS, [cells for cells, _ in rows])}")
    for name in broken:
        print(f"\nBROKEN: {name}")
    if "import_time" in results:
        print(f"\nimport fapilog loads, of grpc, fastapi and httpx: {heavy(results)}")
    if arguments.json:
        kept = {"machine": before, "figures": [data for _, data in rows], "runs": results}
        arguments.json.write_text(json.dumps(kept, indent=1))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
