# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_triu_inf', verdict='FAIL', culprit_op='band_part',
 source_url='https://github.com/apple/coremltools/pull/2771',
 expect='inf - inf is not a number')
class M(nn.Module):
    def forward(self, x): return torch.softmax(x + torch.triu(torch.full_like(x, float('-inf')), 1), -1)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(4, 4),)
