# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_rms_norm_by_hand', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/issues/2821',
 expect='the norm written by hand is right')
class M(nn.Module):
    def forward(self, x): return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 16),)
