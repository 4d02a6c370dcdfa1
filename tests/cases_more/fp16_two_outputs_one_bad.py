# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_two_outputs_one_bad', tier='wide', verdict='FAIL', culprit_op=['exp', 'mul'],
 expect='only the second of two outputs overflows')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.a = nn.Linear(8, 4); self.b = nn.Linear(8, 4)
    def forward(self, x): return torch.sigmoid(self.a(x)), torch.exp(self.b(x) * 6)
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randn(4, 8) * 4,)
