#!/usr/bin/env bash
# torchmetrics 1.9.0: ConcordanceCorrCoef divides variances and covariance by n − 1 and leaves the squared difference of
# the means as it is. Lin's coefficient, which valence-arousal challenges score with, divides by n, so torchmetrics gives
# another number for the same ratings: the same from thousands of rows on, and far too good a one in the small groups
# that scores are broken down to, such as one video, one person or one batch.
#
# Seen: the same ratings, off by 0.5 on average: 10 rows 0.854 where Lin's is 0.843; 3 rows 0.492 for 0.401; 2 rows 0.192
# for 0.108; 1,000 rows 0.861 for both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torchmetrics==1.9.0 torch==2.14.1
cat > "$folder/probe.py" <<'PYTHON'
import torch
from torchmetrics.regression import ConcordanceCorrCoef

for rows in (2, 3, 10, 1000):
    draw = torch.Generator().manual_seed(1)
    rated = torch.randn(rows, generator=draw, dtype=torch.float64)
    found = rated + 0.5 + 0.3 * torch.randn(rows, generator=draw, dtype=torch.float64)
    metric = ConcordanceCorrCoef().set_dtype(torch.float64)
    metric.update(rated, found)
    together = ((rated - rated.mean()) * (found - found.mean())).mean()
    apart = rated.var(correction=0) + found.var(correction=0) + (rated.mean() - found.mean()) ** 2
    print(f"{rows} rows: torchmetrics {float(metric.compute()):.3f}, Lin {float(2 * together / apart):.3f}")
PYTHON
found=$("$folder/venv/bin/python" -W ignore "$folder/probe.py" 2>/dev/null)
echo "$found"
[ "$found" = "2 rows: torchmetrics 0.192, Lin 0.108
3 rows: torchmetrics 0.492, Lin 0.401
10 rows: torchmetrics 0.854, Lin 0.843
1000 rows: torchmetrics 0.861, Lin 0.861" ] || { echo "torchmetrics has changed"; exit 1; }
