# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_diagonal', verdict='FAIL', culprit_op='diagonal',
 source_url='https://github.com/apple/coremltools/pull/2774',
 expect='an offset or other axes')
class M(nn.Module):
    def forward(self, x): return torch.diagonal(x, dim1=1, dim2=2) * 2
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 3, 3),)
