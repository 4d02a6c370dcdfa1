# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_addcmul', verdict='ROUTE', culprit_op='addcmul',
 source_url='https://github.com/apple/coremltools/pull/2774',
 expect='')
class M(nn.Module):
    def forward(self, x, y): return torch.addcmul(x, x, y, value=0.5)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 3), torch.randn(2, 3),)
