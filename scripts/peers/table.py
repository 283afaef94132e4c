"""From measurements of ours and of peers to a table: Markdown, and CSV."""
import csv
import statistics

import catalog

OURS = "syncbn"
LAYOUTS = {"NCHW": "first", "NHWC": "last", "channels_last": "last"}
PASSES = ("forward", "backward", "eval", "step")


def key_of(line):
    return line["workload"], line["layout"], line["world"], line["pass"]


def rows(lines):
    """(workload, layout, ranks, pass) and what was found of it: our time, its ratio to a copy of
    the same bytes, and to the peer to which ours has the largest ratio."""
    mine, others, copies = {}, {}, {}
    for place, line in enumerate(lines):
        if "missing" in line:
            continue
        if line["peer"] == OURS:
            mine.setdefault(key_of(line), []).append((place, line))
            if "copy_ms" in line:
                copies.setdefault(key_of(line), []).append(line["copy_ms"])
        else:
            of_peers = others.setdefault(key_of(line), {})
            of_peers.setdefault(line["peer"], []).append((place, line))
    for key, measured in mine.items():
        milliseconds = statistics.median(line["ms"] for _, line in measured)
        row = dict(ms=milliseconds, copy_ratio=None, peer=None, ratio=None, min_ratio=None)
        if key in copies:
            row["copy_ratio"] = milliseconds / statistics.median(copies[key])
        ratios = {peer: statistics.median(beside(measured, *found) for found in all_found)
                  for peer, all_found in others.get(key, {}).items()}
        if ratios:
            peer = max(ratios, key=ratios.get)
            shortest = min(line["min_ms"] for _, line in measured)
            of_peer = min(line["min_ms"] for _, line in others[key][peer])
            row |= dict(peer=peer, ratio=ratios[peer], min_ratio=shortest / of_peer)
        yield key, row


def beside(measured, place, line):
    """Our time before and after a measurement of a peer ÷ the peer's."""
    before = [mine["ms"] for at, mine in measured if at < place][-1:]
    after = [mine["ms"] for at, mine in measured if at > place][:1]
    return statistics.mean(before + after) / line["ms"]


def show(lines, to_csv=None):
    found = dict(rows(lines))
    print("| workload | layout | ranks | forward | backward | eval | step |")
    print("|---|---|---|---|---|---|---|")
    for place in dict.fromkeys(key[:3] for key in found):
        cells = [cell(found.get((*place, name))) for name in PASSES]
        print(f"| {' | '.join(map(str, place))} | {' | '.join(cells)} |")
    compared = [row for row in found.values() if row["peer"]]
    slower = sum(row["ratio"] > 1 for row in compared)
    print(f"\n{slower} of {len(compared)} cells are slower than a peer.")
    for what in sorted({line["missing"] for line in lines if "missing" in line}):
        print(f"\nNot installed: {what}")
    if to_csv:
        write(found, to_csv)


def cell(row):
    """Median ms (time ÷ copy): median ratio, ratio of the shortest, peer."""
    if not row:
        return "–"
    text = f"{row['ms']:.3g}"
    if row["copy_ratio"]:
        text += f" ({row['copy_ratio']:.2f})"
    if row["peer"]:
        ratio = f"{row['ratio']:.2f}"
        ratio = f"**{ratio}**" if row["ratio"] > 1 else ratio
        text += f": {ratio}, {row['min_ratio']:.2f} {catalog.PEERS[row['peer']].letter}"
    return text


def write(found, path):
    rounded = lambda value, form: "" if value is None else format(value, form)
    with path.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["workload", "layout", "ranks", "pass", "ms", "copy_ratio", "ratio",
                         "min_ratio", "peer"])
        for key, row in found.items():
            writer.writerow([*key, f"{row['ms']:.3g}", rounded(row["copy_ratio"], ".2f"),
                             rounded(row["ratio"], ".2f"), rounded(row["min_ratio"], ".2f"),
                             row["peer"] or ""])
