# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_pixels_divided', tier='none', verdict='PASS', culprit_op=None,
 expect='pixels of 0 … 255 divided first')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.c = nn.Conv2d(3, 8, 3, 2); self.bn = nn.BatchNorm2d(8); self.f = nn.Linear(8, 5)
    def forward(self, x): return torch.softmax(self.f(F.relu6(self.bn(self.c(x / 255.0))).mean((2, 3))), -1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randint(0, 256, (1, 3, 32, 32)).float(),)
