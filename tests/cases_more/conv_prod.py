# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_prod', verdict='FAIL', culprit_op='prod',
 source_url='https://github.com/apple/coremltools/pull/2672',
 expect='a missing reduction')
class M(nn.Module):
    def forward(self, x): return x.prod()
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 4),)
