# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_fft2', verdict='FAIL', culprit_op='fft_fft2',
 source_url='https://github.com/apple/coremltools/issues/2048',
 expect='a two-dimensional transform has no route')
class M(nn.Module):
    def forward(self, x): return torch.fft.fft2(x).real
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 4, 4),)
