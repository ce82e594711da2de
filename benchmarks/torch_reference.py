"""PyTorch reference for speed: the modules and the training step of the paper, in plain PyTorch.

Written from the paper, without code of the official implementation and without tuning.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class NME(nn.Module):
    def __init__(self, scales: list[float], dim: int):
        super().__init__()
        self.register_buffer("scales", torch.tensor(scales))
        self.weight = nn.Parameter(torch.rand(len(scales), dim) * 2 - 1)
        self.bias = nn.Parameter(torch.rand(len(scales), dim) * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = 1 / ((x.abs()[..., None] / self.scales + 1e-6).log().abs() + 1e-6)
        weights = weights / weights.sum(-1, keepdim=True)
        lines = x[..., None, None] * self.weight + self.bias * self.scales[:, None]
        return (weights[..., None] * functional.layer_norm(lines, lines.shape[-1:])).sum(-2)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, width)
        self.drop_weights, self.drop_out = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        weights = self.drop_weights((q @ k.transpose(-1, -2) / math.sqrt(self.head_dim)).softmax(-1))
        return self.drop_out(self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, -1)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, head_dim: int, hidden: int, dropout: float):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, head_dim, dropout)
        layers = (nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout))
        self.mlp = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Encoder(nn.Module):
    """Encode series (batch, time) as normalised tokens (batch, 1 + windows, width), in the published size."""

    def __init__(self, *, window=16, width=128, depth=6, heads=8, head_dim=64, hidden=512, dropout=0.1, max_tokens=1024, scale_dim=32):
        super().__init__()
        self.window = window
        self.shape, self.shape_norm = nn.Linear(window, width), nn.LayerNorm(width)
        self.nme = NME([10.0**k for k in range(-4, 5)], scale_dim)
        self.merge, self.merge_norm = nn.Linear(width + 2 * scale_dim, width), nn.LayerNorm(width)
        self.cls = nn.Parameter(torch.randn(1, 1, width) * 1e-6)
        self.register_buffer("positions", torch.randn(1, max_tokens, width))
        self.blocks = nn.Sequential(*(Block(width, heads, head_dim, hidden, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        windows = x.view(len(x), -1, self.window)
        mean, std = windows.mean(-1, keepdim=True), windows.std(-1, keepdim=True)
        tokens = self.shape_norm(self.shape((windows - mean) / (std + 1e-8)))
        tokens = torch.cat([tokens, self.nme(mean[..., 0]), self.nme(std[..., 0])], -1)
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), self.merge_norm(self.merge(tokens))], 1)
        return self.norm(self.blocks(tokens + self.positions[:, : tokens.shape[1]]))


class Projector(nn.Module):
    """Encoder and projector: projects the CLS token."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head = Encoder(), head(128)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x)[:, 0])


def head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4096, bias=False), nn.BatchNorm1d(4096), nn.ReLU(), nn.Linear(4096, 256))


def make_step(*, compiled: bool = False, autocast: bool = False) -> Callable[[Tensor, Tensor], float]:
    """Return a BYOL step on two views (batch, time), one after the other as in the official implementation; it returns the loss."""
    online, predictor = Projector(), head(256)
    target = copy.deepcopy(online).requires_grad_(False)
    optimizer = torch.optim.AdamW([*online.parameters(), *predictor.parameters()], 2e-3, weight_decay=0.05)

    def loss_of(first: Tensor, second: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            predictions = [predictor(online(view)) for view in (first, second)]
            with torch.no_grad():
                targets = [target(view) for view in (second, first)]
        pairs = zip(predictions, targets, strict=True)
        return sum(functional.mse_loss(functional.normalize(p.float()), functional.normalize(t.float())) for p, t in pairs)

    loss_of = torch.compile(loss_of) if compiled else loss_of

    def step(first: Tensor, second: Tensor) -> float:
        optimizer.zero_grad()
        loss = loss_of(first, second)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for average, parameter in zip(target.parameters(), online.parameters(), strict=True):
                average.lerp_(parameter, 0.001)
        return loss.item()

    return step


def make_embed(*, compiled: bool = False, autocast: bool = False) -> Callable[[Tensor], Tensor]:
    """Return a function from (batch, time) to the CLS token and the mean window token, concatenated."""
    encoder = Encoder().eval()
    encoder = torch.compile(encoder) if compiled else encoder

    def embed(x: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            tokens = encoder(x)
            return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], -1)

    return embed
