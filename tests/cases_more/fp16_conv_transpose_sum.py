# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_conv_transpose_sum', tier='wide', verdict='FAIL', culprit_op=['conv_transpose'],
 expect='overlap-add of a loud signal')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.c = nn.ConvTranspose1d(16, 1, 8, 2, bias=False)
        with torch.no_grad(): self.c.weight.abs_().mul_(10)
    def forward(self, x): return torch.log1p(self.c(x))
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.rand(1, 16, 32) * 20000,)
