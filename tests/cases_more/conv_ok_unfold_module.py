# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_ok_unfold_module', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/pull/2672',
 expect='nn.Unfold is known, Tensor.unfold is not')
class M(nn.Module):
    def forward(self, x): return F.unfold(x, 3, padding=1)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 2, 6, 6),)
