# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_count_pixels', tier='wide', verdict='FAIL', culprit_op=['reduce_sum'],
 expect='the number of pixels of a mask passes 65,504')
class M(nn.Module):
    def forward(self, x):
        mask = torch.sigmoid(x)
        return (mask * x).sum((1, 2, 3)) / mask.sum((1, 2, 3))
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 1, 384, 384) + 2,)
