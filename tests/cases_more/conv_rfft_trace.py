# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_rfft_trace', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/issues/2048',
 expect='known on the trace route')
class M(nn.Module):
    def forward(self, x): return torch.fft.rfft(x).abs()
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 16),)
