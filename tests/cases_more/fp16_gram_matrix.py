# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_gram_matrix', tier='wide', verdict='FAIL', culprit_op=['matmul'],
 expect='the Gram matrix sums over all pixels before it is divided')
class M(nn.Module):
    def forward(self, x):
        f = x.flatten(2)
        return torch.matmul(f, f.transpose(1, 2)) / (f.shape[1] * f.shape[2])
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(1, 8, 48, 48) * 12,)
