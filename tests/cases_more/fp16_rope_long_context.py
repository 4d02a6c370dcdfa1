# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_rope_long_context', tier='wide', verdict='FAIL', culprit_op=['mul', 'matmul', 'cast', 'cos', 'sin', 'linear'],
 expect='angles of rotary positions beyond 8,000')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.register_buffer("f", 10000.0 ** (-torch.arange(0, 32, 2) / 32))
    def forward(self, x, pos):
        a = pos[:, None] * self.f[None]; c, s = a.cos(), a.sin()
        u, v = x[:, :16], x[:, 16:]
        return torch.cat([u * c - v * s, u * s + v * c], -1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(16, 32), torch.arange(8190.0, 8206.0))
