# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_finite_mask', tier='none', verdict='PASS', culprit_op=None,
 expect='a mask of -1e4 twice')
class M(nn.Module):
    def forward(self, x, m): return torch.softmax(x + (1 - m) * -1e4 + (1 - m) * -1e4, -1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); m = torch.ones(2, 8); m[:, 5:] = 0; return (torch.randn(2, 8) * 3, m)
