# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_small_signal_norm', tier='wide', verdict='FAIL', culprit_op=['mul', 'add', 'pow', 'square', 'reduce_mean', 'reduce_sum', 'sqrt'],
 source_url='https://github.com/apple/coremltools/issues/2110',
 expect='the squares of a signal of 1e-4 vanish')
class M(nn.Module):
    def forward(self, x):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-12)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 64) * 1e-4,)
