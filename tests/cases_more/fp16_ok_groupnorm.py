# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_groupnorm', tier='none', verdict='PASS', culprit_op=None,
 expect='group norm of ordinary activations')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.c = nn.Conv2d(3, 16, 3, padding=1); self.n = nn.GroupNorm(4, 16); self.d = nn.Conv2d(16, 4, 1)
    def forward(self, x): return self.d(F.silu(self.n(self.c(x))))
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randn(1, 3, 16, 16),)
