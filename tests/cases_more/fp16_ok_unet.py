# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_unet', tier='none', verdict='PASS', culprit_op=None,
 expect='a small U-Net with skip connections')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.a = nn.Conv2d(3, 8, 3, padding=1); self.b = nn.Conv2d(8, 16, 3, 2, 1); self.u = nn.ConvTranspose2d(16, 8, 2, 2); self.o = nn.Conv2d(16, 2, 1)
    def forward(self, x):
        a = F.relu(self.a(x)); b = F.relu(self.b(a))
        return torch.sigmoid(self.o(torch.cat([a, self.u(b)], 1)))
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randn(1, 3, 16, 16),)
