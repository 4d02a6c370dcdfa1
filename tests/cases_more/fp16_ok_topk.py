# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_topk', tier='none', verdict='PASS', culprit_op=None,
 expect='indices and values of the largest, far apart')
class M(nn.Module):
    def forward(self, x):
        v, i = torch.topk(x, 3); return v, i
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.stack([torch.randperm(32) for _ in range(2)]).float() * 3,)
