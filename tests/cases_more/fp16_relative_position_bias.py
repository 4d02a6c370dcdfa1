# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_relative_position_bias', tier='wide', verdict='FAIL', culprit_op=['mul', 'add', 'sub', 'cast', 'floor'],
 expect='the bucket of a distance by logarithm at a border')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.e = nn.Embedding(4096, 4)
    def forward(self, r, c): return self.e((r * 64.0 + c).long())
def build(): return M().eval()
def inputs():
    return (torch.arange(48.0, 64.0)[None], torch.arange(1.0, 32.0, 2)[None])
