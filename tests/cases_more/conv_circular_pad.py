# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_circular_pad', verdict='ROUTE', culprit_op='pad',
 source_url='https://github.com/apple/coremltools/issues/2175',
 expect='')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.c = nn.Conv2d(2, 3, 3, padding=1, padding_mode='circular')
    def forward(self, x): return self.c(x)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 2, 8, 8),)
