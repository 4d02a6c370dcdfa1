# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_log1p_small', tier='narrow', verdict='WARN', culprit_op=['log'],
 source_url='https://github.com/apple/coremltools/issues/2110',
 expect='log1p becomes log(x + 1), which forgets x below 5e-4 if the sum is rounded')
class M(nn.Module):
    def forward(self, x): return torch.log1p(x) * 1000
def build(): return M().eval()
def inputs(): return (torch.logspace(-5, -3, 16)[None],)
