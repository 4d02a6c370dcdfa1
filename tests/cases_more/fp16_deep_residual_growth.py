# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_deep_residual_growth', tier='wide', verdict='FAIL', culprit_op=['add', 'linear', 'relu', 'mul'],
 expect='a residual stream that doubles in each of 20 blocks')
class B(nn.Module):
    def __init__(self):
        super().__init__(); self.fc = nn.Linear(16, 16)
    def forward(self, x): return x + torch.relu(self.fc(x))
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.b = nn.Sequential(*[B() for _ in range(20)]); self.n = nn.LayerNorm(16)
    def forward(self, x): return self.n(self.b(x))
def build():
    m = M().eval()
    with torch.no_grad():
        for b in m.b: b.fc.weight.copy_(torch.eye(16) * 1.0 + 0.02 * torch.randn(16, 16))
    return m
def inputs():
    torch.manual_seed(1); return (torch.rand(2, 16),)
