# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='cmp_int8_per_tensor_depthwise', verdict='FAIL', culprit_op='dw',
 source_url='https://github.com/apple/coremltools',
 expect='channels of very different scale share one', compress={'method': 'linear', 'mode': 'linear_symmetric', 'dtype': 'int8', 'granularity': 'per_tensor', 'weight_threshold': 64})
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.dw = nn.Conv2d(16, 16, 3, padding=1, groups=16); self.register_buffer("s", torch.logspace(2, -2, 16).view(1, 16, 1, 1))
    def forward(self, x): return F.relu(self.dw(x)) * self.s
def build():
    torch.manual_seed(0); m = M().eval()
    with torch.no_grad():
        m.dw.weight.mul_(torch.logspace(-2, 2, 16).view(-1, 1, 1, 1)); m.dw.bias.zero_()
    return m
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 16, 12, 12),)
