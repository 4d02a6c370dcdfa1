# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_bilinear', verdict='FAIL', culprit_op='bilinear',
 source_url='https://github.com/apple/coremltools/issues/2003',
 expect='')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.b = nn.Bilinear(3, 3, 4)
    def forward(self, x, y): return self.b(x, y)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 3), torch.randn(1, 3),)
