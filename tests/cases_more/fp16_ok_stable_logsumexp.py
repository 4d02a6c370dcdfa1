# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_stable_logsumexp', tier='none', verdict='PASS', culprit_op=None,
 expect='logsumexp written with the maximum taken out')
class M(nn.Module):
    def forward(self, x):
        m = x.max(-1, keepdim=True).values
        return (m + torch.log(torch.exp(x - m).sum(-1, keepdim=True)))[:, 0]
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(4, 32) * 4 + 20,)
