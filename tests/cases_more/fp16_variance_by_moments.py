# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_variance_by_moments', tier='wide', verdict='FAIL', culprit_op=['sub', 'reduce_mean', 'mul', 'pow', 'square', 'cast'],
 source_url='https://github.com/apple/coremltools/issues/2110',
 expect='E[x²] - E[x]² with a mean of 100')
class M(nn.Module):
    def forward(self, x):
        m = x.mean(-1); return torch.sqrt((x * x).mean(-1) - m * m + 1e-4)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(8, 128) + 100,)
