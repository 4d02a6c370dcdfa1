# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_determinant', tier='wide', verdict='FAIL', culprit_op=['mul', 'sub'],
 expect='the determinant of a homography in pixels')
class M(nn.Module):
    def forward(self, m):
        a, b, c, d = m[:, 0], m[:, 1], m[:, 2], m[:, 3]
        det = a * d - b * c
        return torch.stack([d, -b, -c, a], 1) / det[:, None] * 100
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(8, 4) * 400 + torch.tensor([300.0, 0, 0, 300]),)
