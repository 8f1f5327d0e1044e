#!/usr/bin/env bash
# datasets 5.2.0: a folder of Parquet shards whose card (README.md) names its data files is cached under a key in which
# the files have no part. After a shard was added, load_dataset of the same folder goes on giving the old rows; without
# the card, or with a card that names no data files, it gives the new ones.
#
# Seen: 2 rows before and 2 after a second shard with the card's data_files, 2 and 4 with a card that has none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1
cat > "$folder/probe.py" <<'PYTHON'
import pathlib
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

datasets.disable_progress_bars()
NAMED = "---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n# Faces\n"
for name, card in (("with data_files", NAMED), ("without", "---\ntags: [faces]\n---\n# Faces\n")):
    root = pathlib.Path(sys.argv[1]) / name.replace(" ", "-")
    (root / "data").mkdir(parents=True)
    (root / "README.md").write_text(card)
    counts = []
    for shard in range(2):
        pq.write_table(pa.table({"value": [2 * shard, 2 * shard + 1]}), root / "data" / f"{shard}.parquet")
        counts.append(datasets.load_dataset(str(root), split="train", cache_dir=f"{root}-cache").num_rows)
    print(name, counts)
PYTHON
found=$(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore "$folder/probe.py" "$folder" 2>/dev/null)
echo "$found"
[ "$found" = "with data_files [2, 2]
without [2, 4]" ] || { echo "datasets has changed"; exit 1; }
