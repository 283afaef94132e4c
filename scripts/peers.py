#!/usr/bin/env python3
"""Times the host rank beside other implementations of batch normalization, in turn in one run, and prints a table of ratios.

  scripts/peers.py PEERS                                   # every workload and peer that is installed, three rounds
  scripts/peers.py PEERS --workloads tiny,rn_128x28 --worlds 1,2 --rounds 5 --out peers.jsonl
  scripts/peers.py --table peers.jsonl                     # the table again, from what was measured before

PEERS is a folder with bench_peers.py, which times the others and prints JSON lines. Each round takes every workload in
turn: ours, then theirs, with glibc told to keep freed memory, as ours is kept by its owner. A cell is the median over the
rounds of the medians that each round found; a ratio below 1 means that ours is faster. The machine should do nothing else.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The strongest of each kind: alone, over ranks, and in evaluation.
PEERS = "torch_bn,torch_compile_bn,tf_fused,ort,torch_sync_inductor,flax_shard_map"
WORKLOADS = "rn_64x112,rn_256x56,rn_128x28,rn_512x28,rn_1024x14,rn_2048x7,mlp_4096x1024,video,pointcloud,tiny"
# Those whose spatial axes let a channels-last layout differ.
BOTH_LAYOUTS = {"rn_64x112", "rn_256x56", "rn_128x28", "rn_512x28", "rn_1024x14", "rn_2048x7", "video", "tiny"}
LAYOUTS = {"NCHW": "first", "NHWC": "last", "channels_last": "last"}
PASSES = {"fwd_train": "forward", "bwd": "backward", "step": "step", "eval": "eval"}
OURS = "syncbn"


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}")
    return done.stdout


def ours(workload, worlds):
    """One line per pass, layout and number of ranks."""
    for world in worlds:
        for layout in ["first", "last"] if workload in BOTH_LAYOUTS else ["first"]:
            command = ["cargo", "run", "--quiet", "--release", "--example", "bench", "--", "--json", "--adapter", "host"]
            command += ["--workloads", workload, "--devices", str(world), "--layout", layout]
            passes = {}
            for line in json_lines(run(command, cwd=ROOT)):
                passes[line["pass"]] = line["wall_ms"]
                floor = line["bytes"] / line["copy_gb_per_s"] / 1e6 if line.get("copy_gb_per_s") else None
                yield dict(peer=OURS, workload=workload, layout=layout, world=world, ms=line["wall_ms"], floor_ms=floor,
                           **{"pass": line["pass"]})
            if {"forward", "backward"} <= passes.keys():
                step = passes["forward"] + passes["backward"]
                yield dict(peer=OURS, workload=workload, layout=layout, world=world, ms=step, floor_ms=None, **{"pass": "step"})


def theirs(folder, workload, options, pretouch_gb):
    with tempfile.NamedTemporaryFile("r") as found:
        command = [sys.executable, "bench_peers.py", "--peers", options.peers, "--workloads", workload]
        command += ["--worlds", options.worlds, "--malloc", "tuned", "--repeats", str(options.repeats), "--out", found.name]
        command += ["--threads", str(options.threads), "--pretouch-gb", str(pretouch_gb)]
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        for line in json_lines(found.read()):
            if line["type"] == "time":
                yield dict(peer=line["peer"], workload=workload, layout=LAYOUTS[line["layout"]], world=line["world"],
                           ms=line["median_ms"], floor_ms=None, **{"pass": PASSES[line["phase"]]})
            elif line["type"] == "error":
                print(f"{line.get('peer')}, {workload}: {line.get('error') or line.get('stderr')}", file=sys.stderr)


def table(lines):
    """Markdown: our time, the fastest peer's, their ratio, and ours over the bytes of the pass at the speed of a copy."""
    cells, floors = {}, {}
    for line in lines:
        key = line["workload"], line["layout"], line["world"], line["pass"]
        cells.setdefault(key, {}).setdefault(line["peer"], []).append(line["ms"])
        if line["floor_ms"]:
            floors.setdefault(key, []).append(line["floor_ms"])
    print("| workload | layout | ranks | pass | ours, ms | fastest peer | its ms | ours / peer | ours / copy |")
    print("|---|---|---|---|---|---|---|---|---|")
    behind = 0
    for key, peers in cells.items():
        medians = {peer: statistics.median(times) for peer, times in peers.items()}
        mine = medians.pop(OURS, None)
        if mine is None:
            continue
        best = min(medians, key=medians.get, default=None)
        their_ms = f"{medians[best]:.3f}" if best else "–"
        ratio = mine / medians[best] if best else None
        behind += ratio is not None and ratio > 1
        copy = f"{mine / statistics.median(floors[key]):.2f}" if key in floors else "–"
        ratio = f"{ratio:.2f}" if ratio is not None else "–"
        print(f"| {' | '.join(map(str, key))} | {mine:.3f} | {best or '–'} | {their_ms} | {ratio} | {copy} |")
    print(f"\n{behind} row(s) behind the fastest peer.")


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, metavar="PEERS", help="folder with bench_peers.py")
    parser.add_argument("--peers", default=PEERS)
    parser.add_argument("--workloads", default=WORKLOADS)
    parser.add_argument("--worlds", default="1,2,4", help="numbers of ranks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=15, help="of each measurement of a peer")
    parser.add_argument("--threads", type=int, default=2, help="of every implementation in all")
    parser.add_argument("--out", type=Path, help="JSON lines of all that was measured, appended")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and measure nothing")
    options = parser.parse_args()
    if options.table:
        return table(json_lines(options.table.read_text()))
    if not options.folder or not (options.folder / "bench_peers.py").is_file():
        parser.error("PEERS must be a folder with bench_peers.py")
    run(["cargo", "build", "--release", "--example", "bench"], cwd=ROOT)
    worlds = [int(world) for world in options.worlds.split(",")]
    lines = []
    for turn in range(options.rounds):
        for workload in options.workloads.split(","):
            # Memory that a virtual machine touches for the first time is slow: once is enough.
            found = list(ours(workload, worlds)) + list(theirs(options.folder, workload, options, 0 if lines else 8))
            lines += found
            print(f"round {turn + 1}, {workload}: {len(found)} lines", file=sys.stderr)
            if options.out:
                with options.out.open("a") as out:
                    out.writelines(json.dumps(line) + "\n" for line in found)
    table(lines)


if __name__ == "__main__":
    main()
