# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_gelu_export', verdict='FAIL', culprit_op='gelu',
 source_url='https://github.com/apple/coremltools/issues/2863',
 expect='the approximation is dropped on the export route', path='export')
class M(nn.Module):
    def forward(self, x): return F.gelu(x * 3, approximate='tanh') * 100 - F.gelu(x * 3) * 100
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 64),)
