# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_variance_of_pixels', tier='wide', verdict='FAIL', culprit_op=['pow', 'mul', 'square', 'sub', 'reduce_mean'],
 expect='E[x²] of pixels of 0 … 1023')
class M(nn.Module):
    def forward(self, x):
        mean = x.mean((2, 3), keepdim=True); d = x - mean
        return d / torch.sqrt((d * d).mean((2, 3), keepdim=True) + 1e-3)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(1, 2, 16, 16) * 1023,)
