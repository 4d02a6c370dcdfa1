# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_einsum_bilinear', tier='wide', verdict='FAIL', culprit_op=['einsum', 'matmul', 'mul', 'reduce_sum', 'linear'],
 expect='a bilinear score of unscaled features')
class M(nn.Module):
    def forward(self, a, b): return torch.tanh(torch.einsum("bnd,bmd->bnm", a, b) / 5e4)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(1, 6, 64) * 60, torch.rand(1, 6, 64) * 60)
