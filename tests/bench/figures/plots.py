# SPDX-License-Identifier: LGPL-2.1-or-later
"""SVG plots by gnuplot (Debian: gnuplot-nox). Each function writes one file."""

import subprocess

from figures.goals import MILLION

_HEAD = """
set terminal svg size 860,{height} dynamic background rgb 'white' font 'sans-serif,14'
set output '{path}'
set title "{title}"
set grid ytics lc rgb '#dddddd' lt 1 lw 1
set border 3
set tics nomirror
set key outside top center horizontal maxcols 3
"""
_COLOURS = {"ours": "#1b6ca8", "two_lpm": "#c1440e", "floor": "#6b7d6b"}
_NAMES = {"ours": "ours", "two_lpm": "two-LPM", "floor": "floor"}


def _draw(path, title, script, height=520):
    text = _HEAD.format(path=path, title=title, height=height) + script
    subprocess.run(["gnuplot"], input=text, text=True, check=True)


def _block(name, lines):
    return f"${name} << EOD\n" + "\n".join(" ".join(str(x) for x in line) for line in lines) + "\nEOD\n"


def lookups(report, family, path):
    """Nanoseconds of one lookup by number of bindings: four prefix lengths, one service."""
    rows = sorted((row for row in report["rows"] if row["family"] == family and row["lengths"] == "4 lengths"
                   and row["services"] == 1), key=lambda row: row["bindings"])
    script, curves = "", []
    for part, dash, keys in (("random", 1, "random keys"), ("hot", 2, "hot key")):
        for program in ("two_lpm", "ours", "floor"):
            name = f"{part}_{program}"
            script += _block(name, [[row["bindings"], row[part]["ns"][program][1], row[part]["ns"][program][0],
                                     row[part]["ns"][program][2]] for row in rows])
            curves.append(f"${name} using 1:2:3:4 with yerrorlines lw 2 dt {dash} pt {7 if dash == 1 else 6} ps 0.6 "
                          f"lc rgb '{_COLOURS[program]}' title '{_NAMES[program]}, {keys}'")
    script += f"""
set logscale xy
set xlabel 'bindings'
set ylabel 'nanoseconds a lookup (median, bars: quartiles)'
set xtics ('1' 1, '100' 100, '10,000' 10000, '100,000' 100000, '1,000,000' {MILLION})
set xrange [0.7:1.5e6]
set yrange [20:*]
plot {', '.join(curves)}
"""
    _draw(path, f"One lookup, {family.replace('ipv', 'IPv')}, four prefix lengths, one service", script)


def datagrams(report, path):
    """Datagrams a second by variant, both families side by side."""
    experiments = report["experiments"]
    families = [family for family in (4, 6) if f"udp{family}" in experiments]
    names = list(experiments[f"udp{families[0]}"]["per_second"])
    script, curves = "", []
    for place, family in enumerate(families):
        values = experiments[f"udp{family}"]["per_second"]
        shift = (place - (len(families) - 1) / 2) * 0.38
        script += _block(f"udp{family}", [[names.index(name) + shift, values[name][1] / 1e3, values[name][0] / 1e3,
                                           values[name][2] / 1e3] for name in names if name in values])
        colour = ("#1b6ca8", "#8fb8d8")[place]
        curves.append(f"$udp{family} using 1:2:3:4:(0.36) with boxerrorbars lc rgb '{colour}' "
                      f"title 'IPv{family}'")
    tics = ", ".join(f"\"{name.replace(' 65536', ' 65,536').replace(' ', chr(92) + 'n')}\" {i}"
                     for i, name in enumerate(names))
    script += f"""
set style fill solid 0.85 border rgb '#333333'
set ylabel 'thousand datagrams a second (median, bars: quartiles)'
set xlabel 'how the socket is found, and by how many bindings' offset 0,-1.2
set bmargin 6
set xtics ({tics})
set xrange [-0.6:{len(names) - 0.4}]
set yrange [0:*]
plot {', '.join(curves)}
"""
    _draw(path, "UDP over a veth pair, random destinations in a /16 (IPv6: a /112)", script)


def load(report, path):
    """Seconds of a load by number of bindings."""
    script = _block("load", [[p["bindings"], p["parse_s"] + p["compile_and_write_s"],
                              p["compile_and_write_s"], p["two_lpm_updates_s"]] for p in report["load"]])
    script += """
set logscale xy
set xlabel 'bindings'
set ylabel 'seconds (median)'
set xtics ('1,000' 1e3, '10,000' 1e4, '100,000' 1e5, '1,000,000' 1e6)
set xrange [700:1.5e6]
plot $load using 1:2 with linespoints lw 2 pt 7 ps 0.6 lc rgb '#1b6ca8' title 'ours: parse, compile, write, grace', \\
     $load using 1:3 with linespoints lw 2 pt 6 ps 0.6 dt 2 lc rgb '#1b6ca8' title 'ours: compile, write, grace', \\
     $load using 1:4 with linespoints lw 2 pt 7 ps 0.6 lc rgb '#c1440e' title "two-LPM's map updates"
"""
    _draw(path, "Load of a policy of host prefixes", script)
