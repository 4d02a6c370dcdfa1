# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_pow_tensor_two', verdict='FAIL', culprit_op='pow',
 source_url='https://github.com/apple/coremltools/pull/2742',
 expect='torch.pow with the base 2')
class M(nn.Module):
    def forward(self, x): return torch.pow(2.0, x)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.linspace(-3, 5, 9).view(1, 9),)
