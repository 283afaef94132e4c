#!/usr/bin/env python3
"""Draws the charts of docs/PERFORMANCE.md and docs/PROTOCOL.md from docs/data/*.csv, as SVG into
docs/.

  scripts/charts.py            # all of them
  scripts/charts.py NAME...    # these

Needs Python 3.11 or newer. matplotlib is installed with pip into target/charts, once. The same data
gives the same files.
"""
import argparse
import csv
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA, OUT, ENVIRONMENT = ROOT / "docs" / "data", ROOT / "docs", ROOT / "target" / "charts"
MATPLOTLIB = "matplotlib==3.11.2"
CHARTS = ["bandwidth", "peers", "accuracy", "growth", "soak"]

# Before anything is installed.
parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("names", nargs="*", metavar="NAME",
                    help=f"charts to draw: {', '.join(CHARTS)} [all]")
arguments = parser.parse_args()
if unknown := [name for name in arguments.names if name not in CHARTS]:
    parser.error(f"there is no chart {', '.join(unknown)}; there are {', '.join(CHARTS)}")

try:
    import matplotlib
except ImportError:
    python = ENVIRONMENT / "bin" / "python"
    if not python.is_file():
        venv.create(ENVIRONMENT, with_pip=True)
    if not list(ENVIRONMENT.glob("lib/*/site-packages/matplotlib")):
        subprocess.run([python, "-m", "pip", "install", "--quiet", MATPLOTLIB], check=True)
    os.execv(python, [str(python), *sys.argv])

matplotlib.use("svg")
# Text stays text, and ids do not depend on the run.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "syncbn", "font.size": 9,
                            "font.family": "sans-serif", "axes.spines.top": False,
                            "axes.spines.right": False})
import matplotlib.pyplot as plt  # noqa: E402

PASSES = {"forward": "#0072b2", "backward": "#d55e00", "eval": "#009e73"}
WORKLOADS = ["tiny", "mlp_4096x1024", "rn_2048x7", "rn_1024x14", "rn_128x28", "rn_512x28", "video",
             "rn_256x56", "rn_64x112", "pointcloud"]


def read(name, **where):
    """Rows of a file in which columns have these values. Lines with # say what was measured."""
    with (DATA / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return [row for row in rows if all(row[key] == value for key, value in where.items())]


def save(figure, name, title):
    path = OUT / f"{name}.svg"
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Title": title})
    print(path.relative_to(ROOT))


def grid(axes, axis):
    axes.grid(axis=axis, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def bandwidth():
    """Bars: bandwidth of each pass ÷ that of a copy of the same bytes."""
    figure, panels = plt.subplots(1, 3, figsize=(12, 4.2), sharey=True)
    alone = dict(layout="first", ranks="1")
    host = {(row["workload"], row["pass"]): 1 / float(row["copy_ratio"])
            for row in read("peers", **alone) if row["copy_ratio"]}
    plain = dict(dtype="f32", layout="first", epilogue="none")
    shares = lambda rows: {(row["workload"], row["pass"]): float(row["copy_share"]) for row in rows}
    gpu = shares(read("h200", implementation="BatchNorm", **plain))
    gpu |= shares(read("h200", implementation="SyncBatchNorm", **plain))
    software = shares(read("lavapipe", **plain))
    titles = ["host (CPU), 2 cores", "kernels on an H200", "kernels on lavapipe (software driver)"]
    for axes, found, title in zip(panels, [host, gpu, software], titles):
        for number, (name, color) in enumerate(PASSES.items()):
            heights = [found.get((workload, name), 0) for workload in WORKLOADS]
            places = [place + 0.27 * (1 - number) for place in range(len(WORKLOADS))]
            axes.barh(places, heights, 0.25, color=color, label=name)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("bandwidth ÷ that of a copy of the same bytes")
        grid(axes, "x")
    panels[0].set_yticks(range(len(WORKLOADS)), WORKLOADS)
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="upper center",
                  ncols=3, bbox_to_anchor=(0.5, 1.02))
    save(figure, "bandwidth", "Bandwidth of each pass beside a copy")


def growth():
    """Lines: shortest time of each pass against the bytes of x, and against ranks."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4))
    for adapter, style in (("host", "-"), ("llvmpipe", "--")):
        for name, color in PASSES.items():
            for axes, against, column in zip(panels, ["size", "ranks"], ["mib", "ranks"]):
                rows = read("growth", adapter=adapter, against=against, **{"pass": name})
                axes.plot([float(row[column]) for row in rows],
                          [float(row["shortest_ms"]) for row in rows], style, marker="o",
                          markersize=3, color=color,
                          label=f"{name}, {adapter}" if against == "size" else None)
    for axes, label in zip(panels, ["MiB of x, one rank", "ranks, over 12.25 MiB of x in all"]):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel("shortest time, ms")
        grid(axes, "both")
    figure.legend(frameon=False, loc="outside upper center", ncols=3, bbox_to_anchor=(0.5, 1.08))
    save(figure, "growth", "Time of each pass against size and ranks")


def peers():
    """Dots: our time ÷ the time of the peer to which ours has the largest ratio."""
    figure, panels = plt.subplots(1, 3, figsize=(10, 4.6), sharey=True, sharex=True)
    for axes, ranks in zip(panels, "124"):
        for name, color in PASSES.items():
            for layout, marker in (("first", "o"), ("last", "s")):
                rows = [row for row in read("peers", ranks=ranks, layout=layout) if row["ratio"]]
                rows = [row for row in rows if row["pass"] == name]
                # 0.00 in the data is a ratio below 0.005.
                ratios = [max(float(row["ratio"]), 0.005) for row in rows]
                places = [WORKLOADS.index(row["workload"]) for row in rows]
                axes.scatter(ratios, places, s=26, color=color, marker=marker, alpha=0.8,
                             label=f"{name}, channels {layout}" if ranks == "1" else None)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlim(0.004, 2)
        axes.set_xticks([0.01, 0.1, 0.5, 1], ["0.01", "0.1", "0.5", "1"])
        axes.set_title(f"{ranks} rank{'s' if ranks != '1' else ''}", fontsize=10)
        axes.set_xlabel("our time ÷ fastest peer's")
        grid(axes, "both")
    panels[0].set_yticks(range(len(WORKLOADS)), WORKLOADS)
    figure.legend(frameon=False, loc="outside upper center", ncols=3, bbox_to_anchor=(0.5, 1.04))
    save(figure, "peers", "Times beside other implementations, host (CPU)")


# Of each implementation: color and marker. Those of this project are filled and dark.
LOOKS = {
    "syncbn on host": ("#000000", "o"),
    "syncbn on llvmpipe": ("#000000", "s"),
    "syncbn BatchNorm on llvmpipe": ("#000000", "^"),
    "torch": ("#d55e00", "o"),
    "torch.compile": ("#d55e00", "s"),
    "tensorflow fused": ("#e69f00", "o"),
    "keras": ("#e69f00", "s"),
    "flax": ("#0072b2", "o"),
    "flax, two passes": ("#0072b2", "s"),
    "mindspore": ("#cc79a7", "o"),
    "paddle": ("#009e73", "o"),
    "onnxruntime": ("#56b4e9", "o"),
    "numpy f32": ("#999999", "o"),
}
WORDS = ["zero", "nan", "refused"]


def accuracy():
    """Dots: worst error of y, in ulp of the channel's largest, by input and implementation."""
    rows = read("accuracy")
    cases = list(dict.fromkeys(row["input"] for row in rows))[::-1]
    figure, axes = plt.subplots(figsize=(10, 5))
    # Behind the numbers, a column for each word.
    columns = {word: 10 ** (11.2 + 1.3 * number) for number, word in enumerate(WORDS)}
    for number, (name, (color, marker)) in enumerate(LOOKS.items()):
        shift = 0.32 - 0.64 * number / (len(LOOKS) - 1)
        found = [row for row in rows if row["implementation"] == name]
        errors = [columns.get(row["worst_ulp"]) or float(row["worst_ulp"]) for row in found]
        places = [cases.index(row["input"]) + shift for row in found]
        axes.scatter(errors, places, s=30, color=color, marker=marker, label=name, alpha=0.9)
    axes.axvline(8, color="black", linewidth=0.8, linestyle="dashed")
    axes.set_title("dashed: the bound that the tests assert, 8 ulp", fontsize=9, loc="left")
    axes.axvline(10 ** 10.4, color="#999999", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(0.3, 10 ** 14.6)
    ticks = [1, 1e2, 1e4, 1e6, 1e8, 1e10]
    labels = ["1", "100", "10⁴", "10⁶", "10⁸", "10¹⁰"]
    axes.set_xticks(ticks + list(columns.values()), labels + ["all 0", "NaN", "refused"])
    axes.minorticks_off()
    axes.set_yticks(range(len(cases)), cases)
    axes.set_xlabel("worst error of y, ulp of the channel's largest |y|")
    grid(axes, "both")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, "accuracy", "Errors of implementations on hard inputs")


def soak():
    """Lines: what the process held in every second of a soak (scripts/soak.sh)."""
    rows = read("soak")
    minutes = [float(row["second"]) / 60 for row in rows]
    figure, panels = plt.subplots(3, 1, figsize=(10, 5), sharex=True, height_ratios=[2, 1, 1])
    quantities = [("memory, MiB", lambda row: float(row["rss_kib"]) / 1024),
                  ("threads", lambda row: float(row["threads"])),
                  ("open files", lambda row: float(row["files"]))]
    for axes, (name, of) in zip(panels, quantities):
        axes.plot(minutes, [of(row) for row in rows], color="#0072b2", linewidth=0.8)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(name)
        grid(axes, "y")
    counts = rows[-1]
    panels[0].set_title("{rounds} rounds, {layers} layers, {devices} devices, {faults} faults, "
                        "{recoveries} recoveries of a rank".format(**counts), fontsize=10)
    panels[-1].set_xlabel("minutes")
    save(figure, "soak", "Memory, threads and open files of a soak")


if __name__ == "__main__":
    for chart in arguments.names or CHARTS:
        globals()[chart]()
