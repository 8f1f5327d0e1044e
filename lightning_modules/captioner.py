"""Captioner: a vision-language model from elsewhere writes captions of faces that come without."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from datamodules.batch import Batch
from lightning_modules.trainer_access import command_name, data_of
from synfer.foundation.file_reading import plain_reason
from synfer.foundation.validate import check_setting
from synfer.networks.quiet_loading import quiet_loading

_EXPECTED = "an image-text-to-text model of transformers with its processor (BLIP, GIT, LLaVA, …)"


class Captioner(LightningModule):
    """Has a model of transformers describe the rows of a split, for ``predict`` alone; nothing is trained.

    :class:`callbacks.caption_table_writer.CaptionTableWriter` writes what it says into a table, and tells it by
    ``done`` what is written already. Captions are decoded without sampling: a picture has one, whatever its batch.

    Args:
        model: folder or Hub id; ``HF_HUB_OFFLINE=1`` keeps it to what is on the machine.
        prompt: what the model is asked. One with a chat template (LLaVA and its kind) gets it as a user's message and
            its answer is the caption; another goes on from it ("a photo of"). null = none, which the former refuse.
        max_new_tokens: longest caption, in tokens of the model.
        num_beams: width of the beam search; 1 = the most probable token each time.
        dtype: number format of its weights: "auto" = as they are stored.
        revision: branch, tag or commit on the Hub; null = the newest.

    Attributes:
        done: sample ids whose captions need not be written again.

    Raises:
        ValueError: a number out of range.
    """

    uses_unlabelled_rows = True
    """Nobody is asked what a face expresses."""

    def __init__(
        self,
        model: str,
        prompt: str | None = None,
        max_new_tokens: int = 60,
        num_beams: int = 1,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        check_setting(max_new_tokens >= 1, "max_new_tokens", max_new_tokens, "at least 1")
        check_setting(num_beams >= 1, "num_beams", num_beams, "at least 1")
        self.path, self.prompt, self.dtype_name, self.revision = model, prompt, dtype, revision
        self.max_new_tokens, self.num_beams = max_new_tokens, num_beams
        self.done: set[str] = set()
        self.network: Any = None
        self._processor: Any = None

    def settings(self) -> dict[str, Any]:
        """Returns what decides the captions beside the pictures, in plain types."""
        return {
            "model": self.path,
            "revision": self.revision,
            "prompt": self.prompt,
            "max_new_tokens": self.max_new_tokens,
            "num_beams": self.num_beams,
            "dtype": self.dtype_name,
        }

    def setup(self, stage: str) -> None:
        """Loads the model.

        Raises:
            ValueError: another command than predict on real faces, no model of this kind, or a prompt that is missing.
        """
        command, split = command_name(stage), getattr(data_of(self.trainer), "predict_split", None)
        if command != "predict" or split in (None, "synthesis"):
            raise ValueError(
                f"captions in {command}: found data.predict_split={split}, expected predict with data.predict_split="
                "train, val or test"
            )
        if self.network is None:
            self._load()
        if self._has_chat and self.prompt is None:
            raise ValueError(f"model.prompt: found null with '{self.path}', which answers messages, expected one")

    @property
    def _has_chat(self) -> bool:
        return getattr(self._processor, "chat_template", None) is not None

    def _load(self) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        dtype: Any = "auto" if self.dtype_name == "auto" else getattr(torch, self.dtype_name)
        try:
            with quiet_loading():
                self._processor = AutoProcessor.from_pretrained(self.path, revision=self.revision)
                where: dict[str, Any] = {"dtype": dtype, "revision": self.revision}
                self.network = AutoModelForImageTextToText.from_pretrained(self.path, **where)
        except Exception as error:  # transformers raises what it likes
            raise ValueError(f"model.model '{self.path}': {plain_reason(error)}, expected {_EXPECTED}") from error
        if getattr(self._processor, "tokenizer", None) is None:
            raise ValueError(f"model.model '{self.path}': found a processor without tokenizer, expected {_EXPECTED}")
        self.network.requires_grad_(False).eval()

    @torch.no_grad()
    def describe(self, image: Tensor) -> list[str]:
        """Returns a caption of each image.

        Args:
            image: float (B, 3, H, W) in [0, 1], RGB.
        """
        pictures = [to_pil_image((one.float() * 255).round().to(torch.uint8).cpu()) for one in image]
        inputs = self._inputs(pictures)
        inputs = {
            name: value.to(self.device, self.network.dtype if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }
        options = {"do_sample": False, "num_beams": self.num_beams, "max_new_tokens": self.max_new_tokens}
        tokens = self.network.generate(**inputs, **options)
        if self._has_chat:  # the answer alone
            tokens = tokens[:, inputs["input_ids"].shape[1] :]
        said = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()) for text in said]

    def _inputs(self, pictures: list[Any]) -> dict[str, Tensor]:
        if not self._has_chat:
            text = {} if self.prompt is None else {"text": [self.prompt] * len(pictures)}
            return dict(self._processor(images=pictures, return_tensors="pt", **text))
        asked = [
            [{"role": "user", "content": [{"type": "image", "image": one}, {"type": "text", "text": self.prompt}]}]
            for one in pictures
        ]
        # Without padding: one question, and pictures of one size, make as many tokens each.
        made = self._processor.apply_chat_template(
            asked, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        return dict(made)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, list[str]]:
        """Returns sample ids and captions of those rows of a batch that are not done."""
        rows = [row for row, name in enumerate(batch["sample_id"]) if name not in self.done]
        if not rows:
            return {"sample_id": [], "caption": []}
        return {"sample_id": [batch["sample_id"][row] for row in rows], "caption": self.describe(batch["image"][rows])}
