# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_upsample_then_index', tier='wide', verdict='FAIL', culprit_op=['cast', 'mul', 'add', 'floor', 'gather', 'floor_div'],
 expect='nearest index into a row of 5,000 samples')
class M(nn.Module):
    def forward(self, x, t): return x[:, torch.floor(t * 4999.0).long()]
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 5000), torch.rand(64) * 0.5 + 0.5)
