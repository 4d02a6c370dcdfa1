# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_logsumexp_small', tier='none', verdict='PASS', culprit_op=None,
 expect='log-sum-exp whose sum stays small')
class M(nn.Module):
    def forward(self, x): return torch.logsumexp(x, dim=-1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(4, 16),)
