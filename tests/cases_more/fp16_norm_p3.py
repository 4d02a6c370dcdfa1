# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_norm_p3', tier='wide', verdict='FAIL', culprit_op=['pow', 'mul', 'reduce_sum'],
 expect='GeM pooling with p = 3 over activations of 60')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.p = nn.Parameter(torch.tensor([3.0]))
    def forward(self, x): return F.avg_pool2d(x.clamp(min=1e-6).pow(self.p), 8).pow(1.0 / self.p)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(1, 4, 8, 8) * 80,)
