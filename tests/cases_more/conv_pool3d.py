# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_pool3d', verdict='FAIL', culprit_op='adaptive_avg_pool3d',
 source_url='https://github.com/apple/coremltools/pull/2774',
 expect='no route in torch 2.13')
class M(nn.Module):
    def forward(self, x): return F.adaptive_avg_pool3d(x, 2)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 2, 4, 4, 4),)
