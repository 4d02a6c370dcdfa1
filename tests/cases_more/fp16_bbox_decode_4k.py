# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_bbox_decode_4k', tier='wide', verdict='FAIL', culprit_op=['add', 'sub', 'mul', 'cast', 'split'],
 expect='decode to corners and back to a width at 3,840 pixels')
class M(nn.Module):
    def forward(self, c, s):
        lo, hi = c - s / 2, c + s / 2
        return (hi - lo) / s
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(64, 2) * 1500 + 2300, torch.rand(64, 2) * 6 + 2)
