# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_norm_then_subtract', tier='wide', verdict='FAIL', culprit_op=['sub', 'linear', 'reduce_sum', 'add', 'matmul', 'mul', 'cast'],
 source_url='https://github.com/apple/coremltools/issues/2110',
 expect='squared distances by the expanded form')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.register_buffer("c", torch.randn(8, 16) * 0.1 + 5)
    def forward(self, x):
        d = (x * x).sum(-1, keepdim=True) - 2 * x @ self.c.T + (self.c * self.c).sum(-1)
        return -d
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randn(4, 16) * 0.1 + 5,)
