"""One block of a transformer that also tells who has looked at whom."""

from __future__ import annotations

from torch import Tensor, nn


class TokenBlock(nn.Module):
    """Attention and an MLP, each behind a norm and beside a shortcut.

    Args:
        width: of a token.
        num_heads: attention heads; they divide ``width``.
        dropout: in attention and MLP, in [0, 1).
    """

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_others = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, num_heads, dropout, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )

    def forward(
        self, tokens: Tensor, others: Tensor | None = None, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns tokens (B, n, width), and how much each has looked at each of those it looks at, (B, n, m).

        Args:
            tokens: (B, n, width), that look.
            others: (B, m, width), that are looked at; None = the tokens themselves.
            hidden: which of these nobody sees, bool (B, m); None = none.
        """
        asking = self.norm(tokens)
        seen = asking if others is None else self.norm_others(others)
        found, looks = self.attention(asking, seen, seen, key_padding_mask=hidden)  # the mean over the heads
        tokens = tokens + found
        return tokens + self.mlp(self.norm_mlp(tokens)), looks
