# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_diag_square', verdict='FAIL', culprit_op='diagonal',
 source_url='https://github.com/apple/coremltools/pull/2774',
 expect='the default decompositions turn diag into diagonal, which is converted to something else')
class M(nn.Module):
    def forward(self, x): return torch.diag(x)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(3, 3),)
