# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_exp_box_size', tier='wide', verdict='FAIL', culprit_op=['exp', 'mul'],
 expect='the size of a box is the exponential of a logit')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.head = nn.Conv2d(4, 4, 1); self.register_buffer("anchor", torch.tensor([10.0, 13.0]).view(1, 2, 1, 1))
    def forward(self, x):
        t = self.head(x)
        return torch.cat([torch.sigmoid(t[:, :2]), torch.exp(t[:, 2:]) * self.anchor], 1)
def build():
    torch.manual_seed(0); m = M().eval()
    with torch.no_grad(): m.head.weight.mul_(8)
    return m
def inputs():
    torch.manual_seed(1); return (torch.randn(1, 4, 8, 8) * 2,)
