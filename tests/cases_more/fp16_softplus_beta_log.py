# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_softplus_beta_log', tier='wide', verdict='FAIL', culprit_op=['exp', 'log', 'add'],
 expect='log(exp(x) - 1) at small x')
class M(nn.Module):
    def forward(self, x): return torch.log(torch.exp(x) - 1)
def build(): return M().eval()
def inputs(): return (torch.logspace(-4, 0, 32)[None],)
