#!/usr/bin/env python3
"""Times the host (CPU) beside other implementations of batch normalization, in turn in one run.

  scripts/peers/setup.sh torch jax tf onnx                     # install the others
  scripts/peers/compare.py                                     # every workload, one round
  scripts/peers/compare.py --workloads tiny,rn_128x28 --rounds 3 --out peers.jsonl
  scripts/peers/compare.py --table peers.jsonl                 # the table again, nothing is measured
  scripts/peers/compare.py --csv docs/data/peers.csv --table peers.jsonl
  scripts/peers/compare.py --check                             # results of the others

Every measurement of a peer lies between two of ours of the same layout and number of ranks, under
the same conditions: one set of tensors that is used again and again, forward and backward in turn,
evaluation by itself, and as many threads. glibc is told to keep freed memory for the peers, as ours
is kept by its owner. A ratio is our time ÷ the peer's, the median over such triples; the ratio of
the shortest times stands beside it, which other work on the machine disturbs least. Below 1 ours is
faster. The peer of a row is the one to which ours has the largest ratio.
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import catalog
import table

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).resolve().parent / "worker.py"
# Of a run of a peer's worker.
TIMEOUT_S = 900
# glibc gives memory back to the system beyond this.
KEPT_BYTES = 16 << 30


def note(text):
    print(text, file=sys.stderr, flush=True)


def json_lines(text, prefix=""):
    lines = (line.removeprefix(prefix) for line in text.splitlines()
             if line.startswith(prefix + "{"))
    return [json.loads(line) for line in lines]


def build():
    """The bench tool."""
    command = ["cargo", "build", "--release", "--package", "syncbn-bench", "--bin", "bench"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "bench"


def ours(bench, workloads, layout, world, options):
    """A line per workload and pass."""
    # A matrix (N, C) lies the same way in both layouts.
    names = [name for name in workloads if layout == "first" or len(catalog.WORKLOADS[name]) > 2]
    command = [bench, "--json", "--adapter", "host", "--reuse", "--repeats", str(options.repeats),
               "--layout", layout, "--workloads", ",".join(names), "--devices", str(world)]
    environment = dict(os.environ, RAYON_NUM_THREADS=str(options.threads))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}")
    steps = {}
    for line in json_lines(done.stdout):
        key = dict(peer=table.OURS, workload=line["workload"], layout=layout, world=world)
        copied = line["bytes"] / line["copy_gb_per_s"] / 1e6
        times = dict(ms=line["wall_ms"], min_ms=line["wall_min_ms"], copy_ms=copied)
        yield {**key, "pass": line["pass"], **times}
        steps.setdefault(line["workload"], {})[line["pass"]] = line
    for workload, passes in steps.items():
        both = {name: passes["forward"][name] + passes["backward"][name]
                for name in ("wall_ms", "wall_min_ms")}
        yield {"peer": table.OURS, "workload": workload, "layout": layout, "world": world,
               "pass": "step", "ms": both["wall_ms"], "min_ms": both["wall_min_ms"]}


def work(name, layout, world, workloads, port, options, arguments):
    """What a peer's worker prints; none where it does not end."""
    keep = dict(MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_=str(KEPT_BYTES))
    count = str(options.threads)
    threads = dict(OMP_NUM_THREADS=count, MKL_NUM_THREADS=count, OPENBLAS_NUM_THREADS=count,
                   TF_NUM_INTRAOP_THREADS=count, TF_NUM_INTEROP_THREADS=count)
    environment = dict(os.environ, **keep, **threads, CUDA_VISIBLE_DEVICES="",
                       PYTHONWARNINGS="ignore")
    command = [catalog.PEERS[name].python(), WORKER, "--peer", name, "--world", world,
               "--layout", layout, "--workloads", ",".join(workloads), "--threads", count,
               "--repeats", options.repeats, "--port", port, *arguments]
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                              env=environment, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        note(f"  {name}: no end after {TIMEOUT_S} s")
        return []
    if done.returncode:
        note(f"  {name} ended with {done.returncode}: {done.stderr[-600:]}")
    return json_lines(done.stdout, "JSON ")


def theirs(name, layout, world, workloads, port, options):
    """A line per workload and pass of a peer."""
    for line in work(name, layout, world, workloads, port, options, []):
        if line["type"] == "error" or line["type"] == "check" and not line["ok"]:
            note(f"  {name}: {line}")
        if line["type"] != "time":
            continue
        oversubscribed = name in catalog.PROCESSES and world > options.threads
        # A backward that is a step less a forward has not been measured; its step has.
        if line["derived"] or (oversubscribed and line["phase"] == "eval"):
            continue
        placed = table.LAYOUTS[layout] if len(line["shape"]) > 2 else "first"
        yield {"peer": name, "workload": line["workload"], "layout": placed, "world": world,
               "pass": line["phase"], "ms": line["median_ms"], "min_ms": line["min_ms"]}


def installed(options, keep):
    """The peers that are there; a line for each other."""
    for name in options.peers.split(","):
        if name not in catalog.PEERS:
            sys.exit(f"no peer is called {name}; there are {', '.join(catalog.PEERS)}")
        peer = catalog.PEERS[name]
        if peer.python().is_file():
            yield name, peer
        else:
            missing = f"{name}, which needs `scripts/peers/setup.sh {peer.environment}`"
            note(f"not installed: {missing}")
            keep([dict(missing=missing)])


def check(peers, options):
    """Compares the results of every peer with the definition; returns whether all are right."""
    all_right = True
    for number, (name, peer) in enumerate(peers):
        for layout in peer.layouts:
            for world in peer.worlds:
                lines = work(name, layout, world, [], 29700 + number, options, ["--check-only"])
                wrong = [line for line in lines if not line.get("ok")]
                is_right = bool(lines) and not wrong
                all_right &= is_right
                print(f"{name}, {layout}, {world} rank(s): {'ok' if is_right else wrong or 'none'}")
    return all_right


def measure(peers, workloads, options, keep):
    worlds = [int(world) for world in options.worlds.split(",")]
    plan = [(layout, world, name) for name, peer in peers for layout in peer.layouts
            for world in worlds if world in (peer.strongest_at or peer.worlds)]
    # Those that ours is the same beside follow each other, and share its measurement in between.
    plan.sort(key=lambda step: (step[1], table.LAYOUTS[step[0]]))
    bench = build()
    for turn in range(options.rounds):
        before = None
        for number, (layout, world, name) in enumerate(plan):
            place = (table.LAYOUTS[layout], world)
            if place != before:
                keep(ours(bench, workloads, *place, options))
            note(f"round {turn + 1}: {name}, {layout}, {world} rank(s)")
            port = 29700 + (os.getpid() + number) % 2000
            keep(theirs(name, layout, world, workloads, port, options))
            keep(ours(bench, workloads, *place, options))
            before = place


def main():
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    strongest = ",".join(name for name, peer in catalog.PEERS.items() if peer.strongest_at)
    parser.add_argument("--peers", help=f"default: {strongest}; to check, all")
    parser.add_argument("--workloads", default=",".join(catalog.WORKLOADS))
    parser.add_argument("--worlds", default="1,2,4", help="numbers of ranks")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15, help="of each measurement")
    parser.add_argument("--threads", type=int, default=2, help="of every implementation in all")
    parser.add_argument("--out", type=Path, help="JSON lines of all that was measured, appended")
    parser.add_argument("--table", type=Path, help="print the table of such a file only")
    parser.add_argument("--csv", type=Path, help="write the table as CSV too")
    parser.add_argument("--check", action="store_true", help="compare results instead of times")
    options = parser.parse_args()
    if options.table:
        return table.show(json_lines(options.table.read_text()), options.csv)
    options.peers = options.peers or (",".join(catalog.PEERS) if options.check else strongest)
    lines = []

    def keep(found):
        found = list(found)
        lines.extend(found)
        if options.out:
            with options.out.open("a") as out:
                out.writelines(json.dumps(line) + "\n" for line in found)

    peers = list(installed(options, keep))
    if options.check:
        sys.exit(not check(peers, options))
    measure(peers, options.workloads.split(","), options, keep)
    table.show(lines, options.csv)


if __name__ == "__main__":
    main()
