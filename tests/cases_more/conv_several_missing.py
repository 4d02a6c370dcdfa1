# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_several_missing', verdict='FAIL', culprit_op=['cdist', 'lgamma', 'erfinv'],
 source_url='https://github.com/apple/coremltools/issues/2003',
 expect='every op that has no route is named at once')
class M(nn.Module):
    def forward(self, x, y): return torch.cdist(x, y) + torch.lgamma(x.abs() + 1).sum() + torch.erfinv(torch.tanh(x)).sum()
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 4, 3), torch.randn(1, 4, 3),)
