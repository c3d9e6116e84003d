#!/usr/bin/env bash
# Pillow resizes 8-bit pictures in two passes and rounds to bytes between them. Up to version 12.2.0 the horizontal pass is always
# first. Version 13.0.0 starts with the vertical pass if the height shrinks by more than twice as many pixels as the width. The same
# call on the same tall picture then returns other bytes: a quarter of the pixels of a picture of noise differ, each by one level.
# Wide and square pictures do not change. Expected: pictures prepared for a network keep their values when a library is updated, and
# code that reproduces Pillow's arithmetic needs no rule about shapes.
#
# Seen with: pillow 12.2.0 and 13.0.0, Python 3.11, Linux.
#   12.2.0 tall: as across then down; wide: as across then down
#   13.0.0 tall: as down then across; wide: as across then down
#   tall pictures: 258 of 1024 pixels differ, by at most 1; wide ones: 0
# Exit code 0: the behaviour is unchanged. Exit code 1: it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/resize.py" <<'PYTHON'
import sys

import PIL
from PIL import Image

SIDE = 32
told = []
for name, (width, height) in {"tall": (11, 40), "wide": (40, 11)}.items():
    picture = Image.new("L", (width, height))
    levels = bytes((7 * x * x + 13 * y * y + 5 * x * y) % 256 for y in range(height) for x in range(width))
    picture.frombytes(levels)

    def resized(*sizes):
        out = picture
        for size in sizes:
            out = out.resize(size, Image.Resampling.BILINEAR)
        return out.tobytes()

    once = resized((SIDE, SIDE))
    orders = {
        "across then down": resized((SIDE, height), (SIDE, SIDE)),
        "down then across": resized((width, SIDE), (SIDE, SIDE)),
    }
    told.append(f"{name}: as " + ", ".join(order for order, found in orders.items() if found == once))
    with open(f"{sys.argv[1]}.{name}", "wb") as file:
        file.write(once)
print(PIL.__version__, "; ".join(told))
PYTHON
for version in 12.2.0 13.0.0; do
  python3 -m venv "$work/$version"
  "$work/$version/bin/pip" install --quiet --disable-pip-version-check "pillow==$version"
  "$work/$version/bin/python" "$work/resize.py" "$work/of_$version"
done | tee "$work/said"
python3 - "$work" <<'PYTHON'
import sys
from pathlib import Path

work = Path(sys.argv[1])
differences = {
    name: [abs(a - b) for a, b in zip(*((work / f"of_{v}.{name}").read_bytes() for v in ("12.2.0", "13.0.0")))]
    for name in ("tall", "wide")
}
count = {name: sum(map(bool, of)) for name, of in differences.items()}
most = max(differences["tall"])
print(f"tall pictures: {count['tall']} of 1024 pixels differ, by at most {most}; wide ones: {count['wide']}")
expected = [
    "12.2.0 tall: as across then down; wide: as across then down",
    "13.0.0 tall: as down then across; wide: as across then down",
]
sys.exit(0 if (work / "said").read_text().splitlines() == expected and count["tall"] and most == 1 and not count["wide"] else 1)
PYTHON
