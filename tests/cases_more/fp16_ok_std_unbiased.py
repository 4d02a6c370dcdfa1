# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_std_unbiased', tier='none', verdict='PASS', culprit_op=None,
 expect='mean and deviation of ordinary features')
class M(nn.Module):
    def forward(self, x): return torch.cat([x.mean(-1), x.std(-1)], -1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 16, 200) * 2 + 1,)
