# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_conv_raw_pixels', tier='wide', verdict='FAIL', culprit_op=['conv'],
 expect='an unnormalised image through a wide blur with unnormalised weights')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.c = nn.Conv2d(3, 4, 11, padding=5, bias=False); self.bn = nn.InstanceNorm2d(4)
    def forward(self, x): return self.bn(self.c(x))
def build():
    torch.manual_seed(0); m = M().eval()
    with torch.no_grad(): m.c.weight.abs_().mul_(90)
    return m
def inputs():
    torch.manual_seed(1); return (torch.rand(1, 3, 24, 24) * 255,)
