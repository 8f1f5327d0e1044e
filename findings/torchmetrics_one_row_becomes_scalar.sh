#!/usr/bin/env bash
# torchmetrics 1.9.0: what a metric computes loses its dimensions where it holds a single number. A metric that collects
# rows, (n, columns), gives () for one row of one column, also inside a dictionary, and (1, columns) again as soon as
# there are two columns or two rows. So code that takes rows apart works until a split, or a class in it, has one sample.
#
# Seen: (2, 1) stays (2, 1), (1, 2) stays (1, 2), (1, 1) and (1,) become (), alone and as a value of a dictionary.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torchmetrics==1.9.0 torch==2.14.1
cat > "$folder/probe.py" <<'PYTHON'
import torch
from torchmetrics import Metric


class Rows(Metric):
    full_state_update = False

    def __init__(self, named):
        super().__init__()
        self.named = named
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, rows):
        self.rows.append(rows)

    def compute(self):
        rows = torch.cat(self.rows)
        return {"rows": rows} if self.named else rows


for named in (False, True):
    for shape in ((2, 1), (1, 2), (1, 1), (1,)):
        metric = Rows(named)
        metric.update(torch.ones(shape))
        found = metric.compute()
        print(shape, tuple((found["rows"] if named else found).shape), "in a dictionary" if named else "alone")
PYTHON
found=$("$folder/venv/bin/python" -W ignore "$folder/probe.py" 2>/dev/null)
echo "$found"
[ "$found" = "(2, 1) (2, 1) alone
(1, 2) (1, 2) alone
(1, 1) () alone
(1,) () alone
(2, 1) (2, 1) in a dictionary
(1, 2) (1, 2) in a dictionary
(1, 1) () in a dictionary
(1,) () in a dictionary" ] || { echo "torchmetrics has changed"; exit 1; }
