# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='cmp_infinite_constant', verdict='WARN', culprit_op='mask',
 source_url='https://github.com/apple/ml-stable-diffusion/issues/246',
 expect='a constant with infinities cannot be clustered: left alone, and said', compress={'method': 'palettize', 'nbits': 6, 'weight_threshold': 64})
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.f = nn.Linear(32, 32); self.register_buffer("mask", torch.triu(torch.full((32, 32), float("-inf")), 1))
    def forward(self, x): return torch.softmax(self.f(x) @ x.transpose(-1, -2) + self.mask, -1)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 32, 32),)
