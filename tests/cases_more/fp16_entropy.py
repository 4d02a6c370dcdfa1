# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_entropy', tier='wide', verdict='FAIL', culprit_op=['softmax', 'log', 'mul', 'reduce_sum', 'add'],
 expect='entropy p·log(p + 1e-12) scaled up per class')
class M(nn.Module):
    def forward(self, x):
        p = torch.softmax(x, -1)
        return torch.log(p.clamp(min=1e-12))
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(4, 10) * 8,)
