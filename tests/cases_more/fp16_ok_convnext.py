# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_convnext', tier='none', verdict='PASS', culprit_op=None,
 expect='a ConvNeXt block')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.d = nn.Conv2d(16, 16, 7, padding=3, groups=16); self.n = nn.LayerNorm(16); self.a = nn.Linear(16, 64); self.b = nn.Linear(64, 16); self.g = nn.Parameter(torch.full((16,), 1e-6))
    def forward(self, x):
        y = self.n(self.d(x).permute(0, 2, 3, 1)); y = self.g * self.b(F.gelu(self.a(y)))
        return x + y.permute(0, 3, 1, 2)
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randn(1, 16, 8, 8),)
