# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_sampled_interpolate', tier='none', verdict='PASS', culprit_op=None,
 expect='bilinear upsampling of a feature map')
class M(nn.Module):
    def forward(self, x): return F.interpolate(x, size=(48, 48), mode="bilinear", align_corners=False)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 4, 12, 12),)
