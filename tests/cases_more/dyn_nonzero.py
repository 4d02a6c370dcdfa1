# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='dyn_nonzero', verdict='WARN', culprit_op='non_zero',
 source_url='https://github.com/apple/coremltools/issues/1132',
 expect='as many results as there are hits')
class M(nn.Module):
    def forward(self, x): return torch.nonzero(x > 0.2)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(3, 4),)
