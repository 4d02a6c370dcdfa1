# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_rsub_alpha', verdict='FAIL', culprit_op='rsub',
 source_url='https://github.com/apple/coremltools/pull/2680',
 expect='the default decompositions drop alpha of rsub; the other routes refuse it')
class M(nn.Module):
    def forward(self, x): return torch.tanh(torch.rsub(x, 3., alpha=2))
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(3, 5),)
