# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_prescaled_variance', tier='none', verdict='PASS', culprit_op=None,
 expect='scale before the square')
class M(nn.Module):
    def forward(self, x):
        s = x.abs().amax(-1, keepdim=True) + 1e-3; y = x / s
        return y / torch.sqrt((y * y).mean(-1, keepdim=True) + 1e-4)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(4, 64) * 3000,)
