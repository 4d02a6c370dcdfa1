# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_super_resolution', tier='none', verdict='PASS', culprit_op=None,
 expect='pixel shuffle and a residual')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.a = nn.Conv2d(3, 16, 3, padding=1); self.b = nn.Conv2d(16, 12, 3, padding=1); self.s = nn.PixelShuffle(2)
    def forward(self, x): return F.interpolate(x, scale_factor=2, mode="nearest") + self.s(self.b(F.relu(self.a(x))))
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.rand(1, 3, 16, 16),)
