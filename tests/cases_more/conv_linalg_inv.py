# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_linalg_inv', verdict='FAIL', culprit_op='linalg_inv',
 source_url='https://github.com/apple/coremltools/issues/2003',
 expect='linear algebra has no route')
class M(nn.Module):
    def forward(self, x): return torch.linalg.inv(x)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.eye(3)[None] * 2,)
