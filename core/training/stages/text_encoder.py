"""The first stage: a text encoder that understands captions.

CLIP's encoder was trained to match pictures before Stable Diffusion froze it. Here the captions' meaning is
known, so the encoder learns it directly: a small reader attends to the encoder's states, asks one question
a field (the colour of the second thing, the hour of the sky) and must answer each that the caption states.
The reader is thrown away afterwards; what it could read, the UNet's cross-attention can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.models.clip import CLIPTextEncoder
from core.prompts.tokenizer import Tokenizer
from core.scenes.captions import describe
from core.scenes.pool import Pool
from core.scenes.scene import FIELDS, attributes
from core.training.processes import Share
from core.training.training_loop import Precision, home, mixed_precision

IGNORED = -100


class Reader(nn.Module):
    """Text states (B, T, D) -> one row of logits a field, (B, fields, classes), by one cross-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.questions = nn.Parameter(torch.randn(len(FIELDS), width) / width**0.5)
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.answer = nn.Linear(width, max(len(classes) for classes in FIELDS.values()))
        absent = torch.zeros(len(FIELDS), self.answer.out_features)
        for row, classes in enumerate(FIELDS.values()):
            absent[row, len(classes) :] = float("-inf")
        self.register_buffer("absent", absent, persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        b, t, d = states.shape
        q = self.questions.view(1, -1, self.heads, d // self.heads).transpose(1, 2).expand(b, -1, -1, -1)
        k, v = (layer(states).view(b, t, self.heads, -1).transpose(1, 2) for layer in (self.key, self.value))
        read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, len(FIELDS), d)
        logits: Tensor = self.answer(read + self.questions)
        return logits + self.absent


def initialise(encoder: CLIPTextEncoder) -> None:
    """Small embeddings, as CLIP starts from; the layers keep torch's own."""
    embeddings = encoder.text_model.embeddings
    nn.init.normal_(embeddings.token_embedding.weight, std=0.05)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.02)


class TextStage:
    """Trains the encoder and a Reader together."""

    name = "text"

    def __init__(
        self,
        encoder: CLIPTextEncoder,
        tokenizer: Tokenizer,
        *,
        batch: int,
        seed: int,
        precision: Precision = "bfloat16",
        share: Share | None = None,
    ) -> None:
        """share: the part of each batch that this process computes."""
        self.encoder = encoder
        self.reader = Reader(encoder.config.hidden_size, encoder.config.num_attention_heads)
        self.modules: nn.Module = nn.ModuleDict({"encoder": self.encoder, "reader": self.reader})
        self.tokenizer = tokenizer
        self.batch, self.precision = batch, precision
        self.share = Share() if share is None else share
        self.seen, self.held_out = Pool(seed, "seen", 10**9), Pool(seed + 1, "held_out", 1024)

    def loss(self, step: int) -> Tensor:
        """The loss of step `step`, a scalar: cross-entropy of what the captions state."""
        ids, targets = self._captions(self.seen, range(step * self.batch, (step + 1) * self.batch))
        mine, stated = self.share.of(self.batch), (targets != IGNORED).sum(1)
        with mixed_precision(self.modules, self.precision):
            logits = self.reader(self.encoder(ids[mine]))
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets[mine].flatten(), ignore_index=IGNORED)
        # The mean is over what captions state, and some state more: a share weighs as much as it states.
        return loss * self._weight(stated, mine)

    def _weight(self, stated: Tensor, mine: slice) -> float | Tensor:
        """stated: by each caption of the batch, (B,)."""
        if self.share.count == 1:
            return 1.0
        if not self.share.weight(self.batch):
            return 0.0
        return stated[mine].sum() * self.share.count / stated.sum()

    def _captions(self, pool: Pool, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Ids (B, T), and the class of every field that the caption states, (B, fields)."""
        ids, targets = [], []
        for index in indices:
            spec = pool.spec(index)
            text, stated = describe(spec, pool.rng(index, "caption"))
            answers = attributes(spec)
            ids.append(self.tokenizer.chunks(text)[0].ids)
            targets.append([answers[field] if field in stated else IGNORED for field in FIELDS])
        device = home(self.modules)
        return torch.tensor(ids, device=device), torch.tensor(targets, device=device)

    def measure(self) -> Mapping[str, float]:
        """On held-out captions: the part of stated fields, and of whole captions, that are read right."""
        ids, targets = self._captions(self.held_out, range(self.held_out.count))
        wrong = (self.reader(self.encoder(ids)).argmax(-1) != targets) & (targets != IGNORED)
        stated = int((targets != IGNORED).sum())
        return {
            "fields_right": round(1 - int(wrong.sum()) / stated, 4),
            "captions_right": round(1 - int(wrong.any(1).sum()) / len(ids), 4),
        }
