# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_xor', verdict='FAIL', culprit_op='bitwise_xor',
 source_url='https://github.com/apple/coremltools/issues/2003',
 expect='')
class M(nn.Module):
    def forward(self, x): return torch.bitwise_xor(x, 3)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.tensor([[1, 2, 3]], dtype=torch.int32),)
