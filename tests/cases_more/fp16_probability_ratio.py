# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_probability_ratio', tier='wide', verdict='FAIL', culprit_op=['exp', 'softmax', 'real_div', 'log'],
 expect='the ratio of two rare probabilities')
class M(nn.Module):
    def forward(self, x):
        p = torch.softmax(x, -1)
        return p[:, 0] / (p[:, 1] + p[:, 0])
def build(): return M().eval()
def inputs():
    x = torch.zeros(4, 4); x[:, 2] = 19.0; x[:, 0] = torch.tensor([0.0, 1.0, 2.0, 0.5]); return (x,)
