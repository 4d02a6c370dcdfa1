# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_long_sum', tier='acc16', verdict='WARN', culprit_op=['reduce_sum'],
 source_url='https://github.com/apple/coremltools/issues/2625',
 expect='4,096 terms of about 1: a half running sum stalls at 2,048 or steps widely')
class M(nn.Module):
    def forward(self, x): return x.sum(-1) / 64
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(2, 8192) * 0.2 + 0.9,)
