# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_avgpool_sum_override', tier='wide', verdict='FAIL', culprit_op=['avg_pool', 'mul', 'conv'],
 expect='average pooling turned back into a sum')
class M(nn.Module):
    def forward(self, x): return torch.log1p(F.avg_pool2d(x, 16) * 256.0)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(1, 2, 32, 32) * 900,)
