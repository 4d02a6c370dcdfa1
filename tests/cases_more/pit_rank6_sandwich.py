# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_rank6_sandwich', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/issues/1723',
 expect='reshape, permute, reshape through rank 6 is rewritten')
class M(nn.Module):
    def forward(self, x): return x.reshape(1, 4, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(4, 4, 16)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 4, 8, 8),)
