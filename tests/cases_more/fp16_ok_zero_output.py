# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_zero_output', tier='none', verdict='PASS', culprit_op=None,
 expect='an output that is nearly zero everywhere')
class M(nn.Module):
    def forward(self, x): return torch.relu(x - 5), x * 0.5
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 32),)
