# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_logcumsumexp', tier='wide', verdict='FAIL', culprit_op=['exp', 'cumsum'],
 source_url='https://github.com/apple/coremltools/issues/2729',
 expect='logcumsumexp is lowered to exp, cumsum, log without a shift')
class M(nn.Module):
    def forward(self, x): return torch.logcumsumexp(x, dim=-1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 16) * 3 + 10,)
