# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_fmod', verdict='FAIL', culprit_op='fmod',
 source_url='https://github.com/apple/coremltools/pull/2672',
 expect='a missing arithmetic op')
class M(nn.Module):
    def forward(self, x): return torch.fmod(x, 2.0)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 4),)
