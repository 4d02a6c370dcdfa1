# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_gru', tier='none', verdict='PASS', culprit_op=None,
 expect='a GRU of 16 steps')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.r = nn.GRU(8, 16, batch_first=True); self.o = nn.Linear(16, 2)
    def forward(self, x): return self.o(self.r(x)[0][:, -1])
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randn(1, 16, 8),)
