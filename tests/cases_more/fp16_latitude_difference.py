# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_latitude_difference', tier='wide', verdict='FAIL', culprit_op=['cast', 'sub'],
 expect='metres from degrees: 1e-4 degree next to 37')
class M(nn.Module):
    def forward(self, a, b):
        d = (a - b) * 111320.0
        return torch.sqrt((d * d).sum(-1) / 1e4 + 1e-3)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); a = torch.tensor([[37.7749, -122.4194]]).repeat(8, 1); return (a, a + torch.randn(8, 2) * 2e-4)
