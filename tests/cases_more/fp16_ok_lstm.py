# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_lstm', tier='none', verdict='PASS', culprit_op=None,
 expect='an LSTM of 64 steps')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.r = nn.LSTM(16, 32, batch_first=True); self.o = nn.Linear(32, 4)
    def forward(self, x): return self.o(self.r(x)[0])
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randn(1, 64, 16),)
