# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_softargmax_64', tier='none', verdict='PASS', culprit_op=None,
 expect='soft argmax over 64 pixels')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.register_buffer("x", torch.linspace(-1, 1, 64))
    def forward(self, h): return (torch.softmax(h, -1) * self.x).sum(-1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(4, 64) * 3,)
