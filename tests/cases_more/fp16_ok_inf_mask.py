# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_inf_mask', tier='none', verdict='PASS', culprit_op=None,
 expect='-inf masks with no fully masked row')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.register_buffer("m", torch.triu(torch.full((8, 8), float("-inf")), 1))
    def forward(self, q, k, v): return torch.softmax(q @ k.transpose(1, 2) * 0.25 + self.m, -1) @ v
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return tuple(torch.randn(1, 8, 16) for _ in range(3))
