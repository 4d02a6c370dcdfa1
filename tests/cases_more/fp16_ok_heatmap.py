# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_heatmap', tier='none', verdict='PASS', culprit_op=None,
 expect='squares of 511 overflow into exp(-inf) = 0')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.register_buffer("x", torch.arange(512.0))
    def forward(self, mu): return torch.exp(-((self.x[None] - mu[:, None]) ** 2) / 50.0)
def build(): return M().eval()
def inputs(): return (torch.tensor([10.0, 250.0, 500.0]),)
