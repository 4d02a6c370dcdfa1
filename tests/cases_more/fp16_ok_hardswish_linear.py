# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_hardswish_linear', tier='none', verdict='PASS', culprit_op=None,
 expect='linear and hardswish')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.a = nn.Linear(64, 256); self.b = nn.Linear(256, 10)
    def forward(self, x): return self.b(F.hardswish(self.a(x)))
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randn(2, 64),)
