# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_softargmax_4k', tier='wide', verdict='FAIL', culprit_op=['mul', 'matmul', 'linear', 'reduce_sum', 'sub'],
 expect='expected coordinates of 4,000 pixels minus the anchor')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.register_buffer("x", torch.arange(3840.0))
    def forward(self, h, anchor): return (torch.softmax(h, -1) * self.x).sum(-1) - anchor
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); c = torch.tensor([3000.3, 3500.8, 3700.1, 2900.6])
    return (-0.5 * ((torch.arange(3840.0)[None] - c[:, None]) / 2) ** 2, c - torch.rand(4) * 4)
