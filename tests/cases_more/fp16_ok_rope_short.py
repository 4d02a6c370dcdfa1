# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_rope_short', tier='none', verdict='PASS', culprit_op=None,
 expect='rotary positions below 64')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.register_buffer("f", 10000.0 ** (-torch.arange(0, 16, 2) / 16))
    def forward(self, x, pos):
        a = pos[:, None] * self.f[None]; c, s = a.cos(), a.sin()
        u, v = x[:, :8], x[:, 8:]
        return torch.cat([u * c - v * s, u * s + v * c], -1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(16, 16), torch.arange(16.0))
