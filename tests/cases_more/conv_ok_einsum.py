# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_ok_einsum', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/issues/1678',
 expect='')
class M(nn.Module):
    def forward(self, x, y): return torch.einsum('bij,bkj->bik', x, y)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 3, 4), torch.randn(1, 5, 4),)
