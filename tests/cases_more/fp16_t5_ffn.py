# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_t5_ffn', tier='wide', verdict='FAIL', culprit_op=['mul', 'linear', 'gelu'],
 source_url='https://github.com/huggingface/transformers/pull/19229',
 expect='gate times value of a T5 feed-forward overflows before the projection back')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.g = nn.Linear(32, 64, bias=False); self.u = nn.Linear(32, 64, bias=False); self.o = nn.Linear(64, 32, bias=False)
        self.n = nn.LayerNorm(32)
    def forward(self, x): return self.n(self.o(F.gelu(self.g(x)) * self.u(x)))
def build():
    torch.manual_seed(0); m = M().eval()
    with torch.no_grad(): m.g.weight.mul_(300); m.u.weight.mul_(300); m.o.weight.mul_(0.05)
    return m
def inputs():
    torch.manual_seed(1); return (torch.randn(1, 8, 32) * 2,)
