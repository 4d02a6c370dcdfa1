# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_rms_eps_zero_row', tier='wide', verdict='FAIL', culprit_op=['rsqrt', 'mul', 'add', 'real_div', 'sqrt', 'pow', 'reduce_mean', 'square'],
 expect='a normalised row of nearly zeros, with an epsilon below float16')
class M(nn.Module):
    def forward(self, x): return x / (x.norm(dim=-1, keepdim=True) + 1e-8)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); x = torch.randn(2, 8, 16); x[:, 3] *= 1e-6; return (x,)
