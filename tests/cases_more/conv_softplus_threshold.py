# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_softplus_threshold', verdict='ROUTE', culprit_op='softplus',
 source_url='https://github.com/apple/coremltools/blob/9.0/coremltools/converters/mil/frontend/torch/ops.py',
 expect='threshold is dropped by trace and export; the default decompositions spell it out')
class M(nn.Module):
    def forward(self, x): return F.softplus(x, beta=3, threshold=2)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(3, 5),)
