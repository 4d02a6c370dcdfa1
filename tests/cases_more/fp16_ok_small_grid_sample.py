# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_small_grid_sample', tier='none', verdict='PASS', culprit_op=None,
 expect='a grid of 32 pixels')
class M(nn.Module):
    def forward(self, x, g): return F.grid_sample(x, g, align_corners=False)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); y = torch.linspace(-1, 1, 32); img = (y[:, None] + y[None])[None, None]
    return (img, torch.rand(1, 16, 16, 2) * 1.6 - 0.8)
