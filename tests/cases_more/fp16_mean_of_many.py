# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_mean_of_many', tier='narrow', verdict='WARN', culprit_op=['reduce_mean'],
 expect='the sum inside a mean of 40,000 values of 5 passes 65,504')
class M(nn.Module):
    def forward(self, x): return x.mean((2, 3)) 
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(1, 4, 200, 200) * 10,)
