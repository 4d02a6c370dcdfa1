# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_upsample_antialias', verdict='FAIL', culprit_op='_upsample_bilinear2d_aa',
 source_url='https://github.com/apple/coremltools/issues/2175',
 expect='antialias is dropped on every route; only the values tell')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.c = nn.Conv2d(2, 3, 3, padding=1)
    def forward(self, x): return F.relu(F.interpolate(self.c(x), size=(3, 3), mode='bilinear', antialias=True))
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 2, 6, 6),)
