"""The card (README.md) of an exported classifier: what it is, what it takes, and Python that runs it."""

from __future__ import annotations

from pathlib import Path

from synfer.export.exporter import ExportSettings, TrainedClassifier
from synfer.faces.face_alignment import POINTS
from synfer.foundation.atomic_file import atomic_write

_CARD = """\
---
library_name: {library}
pipeline_tag: image-classification
tags:
- facial-expression
- {what}
- synfer
# license: yours to choose, within that of the faces
---

# Facial expressions

{backbone} for {size} × {size} pixels{mirrored}, as {format}. Labels, in this order: {labels}.

Input: `image`, uint8 in 0…255, RGB, (faces, 3, height, width), of any number and size; each picture is the crop of one
face. Cutting the central square, resizing (bilinear, antialiased), scaling and normalising are part of the graph.
Output: `probabilities`, float32, (faces, {count}); rows sum to 1. `labels.json` has the labels, as has the file itself
({inside}).
{alignment}
## Use it

In this folder, or with its path in place of `"."`:

```python
{code}
```

Largest difference from torch when it was made: {worst:.1e}.

## Training

{training}Fingerprint of the trained weights: `{fingerprint}`.

A label is what people in pictures seem to show to whoever labelled the training faces, not what they feel. Check it on
your own faces before you rely on it.
"""

_ALIGNED = """
**The faces of its training were aligned, and the graph does not do it**: give it faces that a similarity (turn, one
scale, shift) has brought to where, as shares of the side from the left and the top, lie {points}. `alignment` in
`labels.json` has these points.
"""

_FORMATS = {
    "onnx": ("onnx", "ONNX", "metadata of the model"),
    "torchscript": ("pytorch", "TorchScript", "an extra file of the archive"),
}

_PICTURE = """\
import numpy as np
from PIL import Image

picture = np.array(Image.open("face.jpg").convert("RGB"))
"""

_CODE = {
    "onnx": """\
import json

import onnxruntime
{picture}
session = onnxruntime.InferenceSession("./classifier.onnx")
labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
(probabilities,) = session.run(None, {{"image": picture.transpose(2, 0, 1)[None]}})
print(labels[probabilities[0].argmax()], probabilities[0].max())""",
    "torchscript": """\
import json

import torch
{picture}
inside = {{"labels.json": ""}}
classifier = torch.jit.load("./classifier.pt", _extra_files=inside)
labels = json.loads(inside["labels.json"])["labels"]
with torch.no_grad():
    probabilities = classifier(torch.from_numpy(picture).permute(2, 0, 1)[None])
print(labels[int(probabilities[0].argmax())], float(probabilities[0].max()))""",
}


def write_classifier_card(
    folder: Path, module: TrainedClassifier, what: str, settings: ExportSettings, worst: float
) -> None:
    """Writes the card of an export.

    Args:
        folder: of the export.
        module: the classifier.
        what: "onnx" or "torchscript".
        settings: what it was exported with.
        worst: largest difference of a probability from torch's.
    """
    library, form, inside = _FORMATS[what]
    command = settings.training_command
    text = _CARD.format(
        library=library,
        what=what,
        format=form,
        inside=inside,
        backbone=module.hparams["backbone"],
        size=module.image_size,
        mirrored=", mean over a face and its mirror image" if module.flip_tta else "",
        labels=", ".join(module.label_space),
        count=len(module.label_space),
        alignment=_alignment(module),
        code=_CODE[what].format(picture=_PICTURE),
        worst=worst,
        training=f"```bash\n{command}\n```\n\n" if command else "",
        fingerprint=module.weights_fingerprint(),
    )
    with atomic_write(folder / "README.md") as partial:
        partial.write_text(text, encoding="utf-8")


def _alignment(module: TrainedClassifier) -> str:
    if not module.face_alignment:
        return ""
    points = zip(POINTS, module.face_alignment["points"], strict=True)
    return _ALIGNED.format(points=", ".join(f"{name} ({x:.3f}, {y:.3f})" for name, (x, y) in points))
