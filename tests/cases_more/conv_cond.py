# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_cond', verdict='FAIL', culprit_op='cond',
 source_url='https://github.com/apple/coremltools/issues/2003',
 expect='control flow as an op has no route')
class M(nn.Module):
    def forward(self, x): return torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, (x,))
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 4),)
